"""Settings of all parts of `vsdmot measure`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from model.settings import Device, Range, check
from pipeline.degrade.kinds import KINDS, Kind


@dataclass(frozen=True, slots=True)
class MeasureConfig:
    """Settings of `vsdmot measure`.

    Attributes:
        what: which measure.
        data: folder with sequences in MOTChallenge layout, at any depth; make measure DATA=FOLDER
            gives FOLDER/sequences/val; empty: none, in detection alone.
        weights: the student's checkpoint; for semantics its projectors lie beside it.
        output: folder or URL for the results.
        stills: detection: COCO file of stills with a split for each image, pictures beside it in
            images/; empty: none.
        pictures: detection: stills of split train, evenly by source; null: as many as val has.
        stride: detection: every so manyth frame of a sequence.
        students: detection: more students, NAME@WEIGHTS each, such as states of a training.
        detectors: detection: NAME@FILE each, YOLOX .onnx or OpenVINO SSD .xml.
        frames: semantics, quality: frames of each sequence, in runs of four.
        apart: sequences that stay out of the rows over all.
        kinds: degradations.
        teacher: teacher.model the student was distilled by.
        pretrained: teacher.pretrained of the same.
        device: where the student runs.
        threads: CPU threads.
    """

    job: ClassVar[str] = "measure"
    about: ClassVar[str] = (
        "Measure how well people are found in stills and single frames, beside other detectors "
        "(what=detection); on degraded sequences, how near the student comes to its teacher's "
        "view of the clean frame (what=semantics), or how well quality ranks severity "
        "(what=quality)."
    )

    what: Literal["detection", "semantics", "quality"]
    data: str
    weights: str = "weights/vsdmot-nano.safetensors"
    output: str = "runs/measure"
    stills: str = ""
    pictures: Annotated[int, Range(0)] | None = None
    stride: Annotated[int, Range(1)] = 4
    students: tuple[str, ...] = ()
    detectors: tuple[str, ...] = ()
    frames: Annotated[int, Range(1)] = 12
    apart: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = KINDS
    teacher: str = "imagenet-lite2"
    pretrained: str = "package"
    device: Device = "cpu"
    threads: Annotated[int, Range(1)] = 1

    def __post_init__(self) -> None:
        check(self)
