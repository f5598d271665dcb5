"""What is wanted of videos: a stretch, a part of the picture, and which boxes become rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np

from model.settings import Range, check
from pipeline.video.info import VideoInfo
from pipeline.video.region import Crop, Region, RegionError, problem_of

if TYPE_CHECKING:
    from pipeline.video.place import DecodeState

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class OnlyConfig:
    """What is tracked of a video, and who gets rows. It changes results.

    Attributes:
        start_s: seconds of video at which tracking begins; frames then count from there.
        end_s: seconds of video at which tracking ends; null: its end.
        region: polygons, each a list of corners [x, y] of the displayed picture, in fractions of
            it if all are from 0 to 1, else in pixels. People get rows where the middle of the lower
            edge of their box lies in one of them. The picture is cropped to the region, with room
            for people at its edge. Empty: the whole picture.
        min_height: least height of a box in pixels of the video.
        classes: names of classes that get rows; empty: all of the student.
    """

    start_s: Annotated[float, Range(0, math.inf, below=True)] = 0.0
    end_s: Annotated[float, Range(0, math.inf, above=True, below=True)] | None = None
    region: tuple[tuple[tuple[float, float], ...], ...] = ()
    min_height: Annotated[float, Range(0, math.inf, below=True)] = 0.0
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self)
        if self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError(
                f"only.end_s: {self.end_s:g} is not after only.start_s, {self.start_s:g}"
            )
        if problem := problem_of(self.region):
            raise ValueError(f"only.region: {problem}")

    @property
    def whole_videos(self) -> bool:
        """Whether videos are tracked from their start to their end."""
        return self.start_s == 0 and self.end_s is None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of one video.

    Attributes:
        region: Where people stand; None is everywhere.
        crop: The part of the displayed picture that is tracked; None is all of it.
        min_height: Least height of a box in pixels of the source.
        classes: Names of classes; empty is all.
    """

    region: Region | None = None
    crop: Crop | None = None
    min_height: float = 0.0
    classes: frozenset[str] = frozenset()

    @classmethod
    def of(cls, only: OnlyConfig, info: VideoInfo) -> Self:
        """What the settings want of a video.

        Raises:
            RegionError: The region reaches beyond the picture of the video.
        """
        region = Region.of(only.region, info.height, info.width) if only.region else None
        crop = None if region is None else region.crop
        return cls(region, crop, only.min_height, frozenset(only.classes))

    def picture(self, info: VideoInfo) -> tuple[int, int]:
        """Height and width in pixels of the part of the picture that is tracked."""
        if self.crop is None:
            return info.height, info.width
        return self.crop.height, self.crop.width

    def in_source(self, boxes: Array) -> Array:
        """Boxes (N, 4) xyxy in pixels of the tracked part, in pixels of the whole picture."""
        if self.crop is None:
            return boxes
        return boxes + np.array([self.crop.left, self.crop.top] * 2)

    def keeps(self, boxes: Array, class_names: Sequence[str] | Array) -> Array:
        """Which boxes become rows, (N,) bool.

        Args:
            boxes: (N, 4) xyxy in pixels of the whole picture.
            class_names: N names.
        """
        kept = boxes[:, 3] - boxes[:, 1] >= self.min_height
        if self.classes:
            kept &= np.array([name in self.classes for name in class_names], bool)
        if self.region is not None:
            middle = (boxes[:, 0] + boxes[:, 2]) / 2
            kept &= self.region.holds(np.stack([middle, boxes[:, 3]], axis=1))
        return kept


ALL = Wanted()
"""All people in all of the picture."""


def tracked_picture(only: OnlyConfig, info: VideoInfo) -> tuple[int, int]:
    """Height and width of what is tracked of a video; all of it if the region does not fit it."""
    try:
        return Wanted.of(only, info).picture(info)
    except RegionError:
        return info.height, info.width


def stretch(
    only: OnlyConfig, start: DecodeState | float | None, end_s: float | None
) -> tuple[DecodeState | float | None, float | None]:
    """Where to start and end in a video, for `FrameStream`.

    Args:
        only: Its start and end are kept.
        start: Where a pass or window starts: a state, or seconds of video; None is the start.
        end_s: Seconds of video at which it ends; None is the end.
    """
    if start is None or isinstance(start, int | float):
        start = max(start or 0.0, only.start_s) or None
    ends = [end for end in (end_s, only.end_s) if end is not None]
    return start, min(ends, default=None)
