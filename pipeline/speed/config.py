"""Settings of the model of the schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from model.settings import Range, check


@dataclass(frozen=True, slots=True)
class ScalingConfig:
    """What the model of the schedule takes as given, because it cannot be measured on a CPU.

    Attributes:
        gpu_frames_s: frames a second that a GPU encodes and steps; of `make bench-gpu`.
        gpu_cores: CPU cores beside a GPU.
        store_requests_s: requests a second that the store answers; S3 states 5,500 reads a
            second for a prefix.
        video_minutes: mean length of a video.
        video_fps: frames a second of a video.
        video_mbit: megabits a second of a video.
    """

    gpu_frames_s: Annotated[float, Range(0, above=True)] = 2000.0
    gpu_cores: Annotated[int, Range(1)] = 16
    store_requests_s: Annotated[float, Range(0, above=True)] = 5500.0
    video_minutes: Annotated[float, Range(0, above=True)] = 10.0
    video_fps: Annotated[float, Range(0, above=True)] = 25.0
    video_mbit: Annotated[float, Range(0, above=True)] = 4.0

    def __post_init__(self) -> None:
        check(self)
