"""Settings of `jobs.measure`, whatever is measured."""

from typing import ClassVar, Literal

from pydantic import Field

from jobs.cli import JobConfig
from pipeline.degrade.kinds import KINDS


class MeasureConfig(JobConfig):
    """Settings of `jobs.measure`."""

    job: ClassVar[str] = "measure"
    about: ClassVar[str] = (
        "Measure how well people are found in stills and single frames, beside other detectors "
        "(what=detection); on degraded sequences, how near the student comes to its teacher's "
        "view of the clean frame (what=semantics), or how well quality ranks severity "
        "(what=quality)."
    )

    what: Literal["detection", "semantics", "quality"] = Field(description="which measure")
    data: str = Field(
        description="folder with sequences in MOTChallenge layout, at any depth; make measure "
        "DATA=FOLDER gives FOLDER/sequences/val; empty: none, in detection alone"
    )
    weights: str = Field(
        description="the student's checkpoint; for semantics its projectors lie beside it"
    )
    output: str = Field("runs/measure", description="folder or URL for the results")
    stills: str = Field(
        "",
        description="detection: COCO file of stills with a split for each image, pictures beside "
        "it in images/; empty: none",
    )
    pictures: int | None = Field(
        None,
        ge=0,
        description="detection: stills of split train, evenly by source; null: as many as val has",
    )
    stride: int = Field(4, ge=1, description="detection: every so manyth frame of a sequence")
    students: list[str] = Field(
        default_factory=list,
        description="detection: more students, NAME@WEIGHTS each, such as states of a training",
    )
    detectors: list[str] = Field(
        default_factory=list,
        description="detection: NAME@FILE each, YOLOX .onnx or OpenVINO SSD .xml",
    )
    frames: int = Field(
        12, ge=1, description="semantics, quality: frames of each sequence, in runs of four"
    )
    apart: list[str] = Field(
        default_factory=list, description="sequences that stay out of the rows over all"
    )
    kinds: list[str] = Field(default_factory=lambda: list(KINDS), description="degradations")
    teacher: str = Field("imagenet-lite2", description="teacher.model the student was distilled by")
    pretrained: str = Field("package", description="teacher.pretrained of the same")
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="cpu, cuda or cuda:N")
    threads: int = Field(1, ge=1, description="CPU threads")
