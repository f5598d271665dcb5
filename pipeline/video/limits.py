"""What a file may ask for: sizes beyond which it is refused, and the time one may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from model.settings import Range, check
from pipeline.video.info import VideoInfo

_FRAME_BYTES = 256, 16384  # of a frame where the header tells no length, and where it may lie


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one file may ask for. None of them changes the rows of a video within them.

    A few bytes of header can declare pictures of gigabytes or a billion frames, and a damaged
    stream can keep a decoder busy for ever.

    Attributes:
        max_pixels: width times height; larger pictures are refused.
        max_frames: frames of a video, by its header and as decoded; more are refused, or cut off.
        max_fps: frames a second by the header.
        max_attempts: times a video may end its worker before it is a dead letter.
        deadline_base_s: seconds that any video may take, however short.
        deadline_frame_s: seconds more for each frame that it should hold; after them it is a
            dead letter.
        watchdog_s: seconds without a frame that end the whole job.
    """

    max_pixels: Annotated[int, Range(1)] = 64_000_000
    max_frames: Annotated[int, Range(1)] = 20_000_000
    max_fps: Annotated[float, Range(0, above=True)] = 1000.0
    max_attempts: Annotated[int, Range(1)] = 3
    deadline_base_s: Annotated[float, Range(0, above=True)] = 900.0
    deadline_frame_s: Annotated[float, Range(0)] = 5.0
    watchdog_s: Annotated[float, Range(0, above=True)] = 1800.0

    def __post_init__(self) -> None:
        check(self)

    def refusal(self, info: VideoInfo) -> str | None:
        """Why a video is refused by what its header says, None if it is not."""
        pixels = info.width * info.height
        if pixels > self.max_pixels:
            return (
                f"the picture is {info.width}x{info.height}, {pixels} pixels; "
                f"limits.max_pixels is {self.max_pixels}"
            )
        if info.frames_expected is not None and info.frames_expected > self.max_frames:
            return (
                f"the header declares {info.frames_expected} frames; "
                f"limits.max_frames is {self.max_frames}"
            )
        if info.fps is not None and info.fps > self.max_fps:
            return (
                f"the header declares {info.fps:.6g} frames a second; "
                f"limits.max_fps is {self.max_fps:g}"
            )
        return None

    def deadline_s(self, info: VideoInfo) -> float:
        """Seconds that a video may take, by the length its header tells, else by its bytes."""
        frames = max(frames_guessed(info), info.size_bytes // _FRAME_BYTES[1])
        return self.deadline_base_s + self.deadline_frame_s * frames


def frames_guessed(info: VideoInfo) -> int:
    """Frames by the header, else by duration and rate, else by bytes: then rather too many."""
    if info.frames_expected is not None:
        return info.frames_expected
    if info.duration_s is not None and info.fps is not None:
        return round(info.duration_s * info.fps)
    return info.size_bytes // _FRAME_BYTES[0]
