"""The settings of `jobs.gpu_kit`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from model.settings import NotEmpty, Range, check


@dataclass(frozen=True, slots=True)
class SpeedKitConfig:
    """Settings of `jobs.gpu_kit`.

    Attributes:
        video: a video file; its first frames are tracked, and all of it is decoded.
        output: folder for the kit.
        weights: weights file of the student.
        frames: frames that travel with the kit.
        window: frames of one video in a batch.
        rows: numbers of videos in a batch to measure, rising.
        seconds: time of one measure.
        device: cuda, or cpu for a rehearsal.
        part_mb: greatest size of a part of the kit, in 10^6 bytes.
    """

    job: ClassVar[str] = "gpu_kit"
    about: ClassVar[str] = (
        "Make a folder from which a bare machine with a GPU measures the speed of tracking."
    )

    video: Annotated[str, NotEmpty()]
    output: str = "runs/gpu-kit"
    weights: str = "weights/vsdmot-nano.safetensors"
    frames: Annotated[int, Range(1, 256)] = 32
    window: Annotated[int, Range(1, 256)] = 8
    rows: Annotated[tuple[Annotated[int, Range(1, 256)], ...], NotEmpty()] = (1, 2, 4, 8, 16, 32)
    seconds: Annotated[float, Range(0, above=True)] = 1.0
    device: Literal["cuda", "cpu"] = "cuda"
    part_mb: float = 60.0

    def __post_init__(self) -> None:
        check(self)
