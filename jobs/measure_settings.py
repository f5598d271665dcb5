"""The settings of `vsdmot measure`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from model.settings import Device, Range, check
from pipeline.degrade.kinds import KINDS, Kind


@dataclass(frozen=True, slots=True)
class MeasureConfig:
    """Settings of `vsdmot measure`.

    Attributes:
        what: ability to measure.
        data: folder with sequences in MOTChallenge layout, at any depth; `make measure DATA=FOLDER`
            takes FOLDER/sequences/val. Empty: no sequences, which only detection allows.
        weights: weights file of the student; semantics also needs its projectors, the file
            NAME.distiller.safetensors in the same folder.
        output: folder or URL for the results.
        stills: for detection: COCO file of stills that has a split for each image, with the
            pictures in the folder images/ beside it; empty: no stills.
        pictures: for detection: number of stills of split train, evenly by source; null: as many
            as split val has.
        stride: for detection: distance between the measured frames of a sequence, in frames; 1
            measures all.
        students: for detection: further students, NAME@WEIGHTS each.
        detectors: for detection: detectors of other projects, NAME@FILE each: a YOLOX .onnx or an
            OpenVINO SSD .xml.
        frames: for semantics and quality: number of frames of each sequence, in groups of four
            successive frames. For still: number of frames of each sequence that quiet video is made
            of, five times as many.
        apart: names of sequences that are left out of the rows over all sequences.
        kinds: for semantics and quality: kinds of degradation.
        teacher: for semantics: teacher.model of the distillation of the student.
        pretrained: for semantics: teacher.pretrained of the distillation of the student.
        device: device of the student.
        threads: CPU threads.
    """

    job: ClassVar[str] = "measure"
    about: ClassVar[str] = (
        "Measure one ability of a student. detection: AP on stills and single frames, beside "
        "other detectors. semantics: similarity of its features on degraded frames to the "
        "teacher's features on clean frames. quality: rank correlation of its quality with the "
        "severity of degradations. still: scores with and without still.skip, on the sequences "
        "and on mostly quiet video made of them."
    )

    what: Literal["detection", "semantics", "quality", "still"]
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
