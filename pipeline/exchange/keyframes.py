"""Keyframes of a track: few boxes from which linear interpolation gives all others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_FIRST_LOOK = 32  # frames looked at for the next keyframe; doubled while all of them fit
_ROUNDING = 1e-6  # pixels; errors of float64 are smaller


def runs(place: np.ndarray) -> Iterator[slice]:
    """Stretches in which a track has a box in each tracked frame.

    Args:
        place: (N,) position of each box's frame among the tracked frames, ascending.
    """
    ends = np.flatnonzero(np.diff(place) != 1) + 1
    for start, end in zip([0, *ends.tolist()], [*ends.tolist(), len(place)], strict=True):
        if end > start:
            yield slice(start, end)


def thinned(frame: np.ndarray, boxes: np.ndarray, tolerance: float) -> list[int]:
    """Choose keyframes of one stretch; the first and the last box are among them.

    Args:
        frame: (N,) numbers of the frames, ascending, N at least 1.
        boxes: (N, 4) float64 corners or sides of the boxes.
        tolerance: greatest difference of an interpolated value, in the unit of `boxes`.

    Returns:
        Rows of the keyframes. Interpolation over the frame numbers gives each other box within the
        tolerance.
    """
    chosen, last = [0], len(frame) - 1
    while chosen[-1] < last:
        chosen.append(_next(frame, boxes, chosen[-1], tolerance + _ROUNDING))
    return chosen


def _next(frame: np.ndarray, boxes: np.ndarray, start: int, tolerance: float) -> int:
    """The last row to which a line from `start` passes all rows between within the tolerance."""
    look = _FIRST_LOOK
    while True:
        end = min(start + look, len(frame) - 1)
        steps = (frame[start + 1 : end + 1] - frame[start]).astype(np.float64)[:, None]
        rise = boxes[start + 1 : end + 1] - boxes[start]
        slope = rise / steps
        # A line to row j has to lie in the cone that the rows before j leave open.
        low = np.maximum.accumulate((rise - tolerance) / steps, axis=0)
        high = np.minimum.accumulate((rise + tolerance) / steps, axis=0)
        fits = ((slope[1:] >= low[:-1]) & (slope[1:] <= high[:-1])).all(axis=1)
        reached = int(np.flatnonzero(np.r_[True, fits])[-1])
        closed = bool((low > high).any())
        if closed or end == len(frame) - 1:
            return start + 1 + reached
        look *= 2
