"""The frames of one video: rows, curves over time, stretches of low quality, the best view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_CURVE_POINTS = 2000
_LOW_JOIN_S, _LOW_LEAST_S = 1.0, 0.2


@dataclass(frozen=True, slots=True)
class FrameRows:
    """The tracked frames of a video, in order: index, seconds, quality, weight, people."""

    index: Array
    time_s: Array
    quality: Array
    semantic_weight: Array
    people: Array

    @property
    def interval_s(self) -> float:
        """Median time between two frames; 0.04 for a single one."""
        return float(np.median(np.diff(self.time_s))) if len(self.time_s) > 1 else 0.04

    @property
    def end_s(self) -> float:
        """Time at which the last frame ends."""
        return float(self.time_s[-1]) + self.interval_s if len(self.time_s) else 0.0


@dataclass(frozen=True, slots=True)
class Curves:
    """Values over time in equal bins of a video; NaN where a bin has no frame.

    Attributes:
        step_s: length of a bin.
        quality, quality_low: mean and least quality.
        semantic_weight, people: means.
    """

    step_s: float
    quality: Array
    quality_low: Array
    semantic_weight: Array
    people: Array


def curves(frames: FrameRows) -> Curves:
    """Values of the frames over time, in bins of a frame, or longer to bound their number."""
    end = frames.end_s
    step = max(frames.interval_s, end / _CURVE_POINTS, 1e-3)
    count = max(1, int(np.ceil(end / step - 1e-6)))
    # Half an interval later, so that rounding moves no frame to the bin before its own.
    place = np.minimum(((frames.time_s + frames.interval_s / 2) / step).astype(int), count - 1)
    number = np.bincount(place, minlength=count).astype(float)
    number[number == 0] = np.nan

    def mean(values: Array) -> Array:
        return np.bincount(place, values, count) / number

    low = np.full(count, np.inf)
    np.minimum.at(low, place, frames.quality)
    low[np.isinf(low)] = np.nan
    return Curves(
        step, mean(frames.quality), low, mean(frames.semantic_weight), mean(frames.people)
    )


def low_stretches(frames: FrameRows, below: float) -> list[tuple[float, float]]:
    """Begin and end in seconds of stretches of low quality.

    Stretches less than a second apart are joined; after that those of less than 0.2 s are left out.
    """
    places = np.flatnonzero(frames.quality < below)
    if not len(places):
        return []
    start = frames.time_s[places]
    end = start + frames.interval_s
    breaks = np.flatnonzero(start[1:] - end[:-1] > _LOW_JOIN_S)
    first, last = np.r_[0, breaks + 1], np.r_[breaks, len(places) - 1]
    found = zip(start[first].tolist(), end[last].tolist(), strict=True)
    return [(a, b) for a, b in found if b - a >= _LOW_LEAST_S]


def best_view(frames: FrameRows) -> int:
    """Position of the frame to open a page with: most people, then best quality.

    Raises:
        ValueError: There is no frame.
    """
    if not len(frames.index):
        raise ValueError("the video has no tracked frame")
    return int(np.lexsort((frames.quality, frames.people))[-1])
