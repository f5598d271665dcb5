"""Finds shot cuts: the first frame that has nothing in common with the frames before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

Cells = np.ndarray[Any, np.dtype[np.uint8]]

# The luma of a picture is averaged to so many cells, whatever its shape and size. It is compared
# in square patches of cells, which overlap by half.
_ROWS, _COLUMNS = 24, 40
_SIDE, _STEP = 8, 4

_WHITE = 245  # a cell this bright may be clipped, so it is not compared
_FLAT = 1.0  # standard deviation in grey levels of a patch without structure
_FEWEST = 0.12  # share of the patches that must be comparable

# Set by `vsdmot measure what=cuts`: no sequence has a false cut, and nearly all cuts are found.
_UNLIKE = 0.36  # likeness of two frames below which they may be of two shots
_DROP = 0.25  # by so much the likeness must be less than that of the frames before


@dataclass(frozen=True, slots=True)
class CutState:
    """All that decides what a `CutDetector` says next; nobody changes its array.

    Attributes:
        reference: (24, 40) uint8 cells of the last picture with structure.
        alike: likeness of the last two pictures that could be compared; None if the shot has had
            only one.
    """

    reference: Cells
    alike: float | None


class CutDetector:
    """Compares the frames of one video, in order, with the frame before.

    The likeness of two frames is the mean correlation of the luma of their patches. Exposure,
    light, blur and haze change little of it, sensor noise is averaged out by the cells, and
    clipped cells, as in a flash, are left out. Fast motion makes all frames less alike. So a frame
    begins a shot only if it is also much less like the frame before than that one was like the one
    before it. A picture without structure, such as a black one, says nothing: the next picture is
    compared with the one before it. A shot of one frame is not told from its successor.
    """

    def __init__(self, state: CutState | None = None) -> None:
        """Start after the frame of a state, or before the first frame."""
        self._scaler = VideoReformatter()
        self._reference = state.reference if state else None
        self._alike = state.alike if state else None

    def state(self) -> CutState | None:
        """State after the last frame; None before the first."""
        if self._reference is None:
            return None
        return CutState(self._reference, self._alike)

    def is_cut(self, picture: VideoFrame) -> bool:
        """Whether the next picture, as stored, is the first one of a new shot."""
        return self.begins_shot(cells_of(picture, self._scaler))

    def begins_shot(self, cells: Cells) -> bool:
        """As `is_cut`, for the cells (24, 40) of the next picture."""
        alike = None if self._reference is None else likeness(self._reference, cells)
        if alike is None:
            if self._reference is None or likeness(cells, cells) is not None:
                self._reference = cells
            return False
        self._reference = cells
        before, self._alike = self._alike, alike
        if before is None or alike >= min(_UNLIKE, before - _DROP):
            return False
        self._alike = None
        return True


def cells_of(picture: VideoFrame, scaler: VideoReformatter) -> Cells:
    """Return what is compared of a picture, (24, 40) uint8 mean luma of its cells."""
    small = scaler.reformat(
        picture, width=_COLUMNS, height=_ROWS, format="gray", interpolation="AREA", threads=1
    )
    return small.to_ndarray().astype(np.uint8)


def likeness(one: Cells, other: Cells) -> float | None:
    """Mean correlation of the patches of two pictures (24, 40) of cells, in [-1, 1].

    Returns:
        None if too few patches have structure, and no clipped cells, in both.
    """
    a, b = _patches(one), _patches(other)
    seen = ((a < _WHITE) & (b < _WHITE)).astype(np.float32)
    count = seen.sum(1)
    # Sums over the cells that are not clipped; at least one for each patch, against division by 0.
    divisor = np.maximum(count, 1)
    a = (a - ((a * seen).sum(1) / divisor)[:, None]) * seen
    b = (b - ((b * seen).sum(1) / divisor)[:, None]) * seen
    variance_a, variance_b = (a * a).sum(1) / divisor, (b * b).sum(1) / divisor
    usable = (np.minimum(variance_a, variance_b) > _FLAT**2) & (count > _SIDE * _SIDE / 2)
    if usable.mean() < _FEWEST:
        return None
    covariance = (a * b).sum(1) / divisor
    correlation = covariance[usable] / np.sqrt(variance_a[usable] * variance_b[usable])
    return float(correlation.mean())


def _patches(cells: Cells) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The patches of a picture, (patches, cells of a patch) float32."""
    windows = np.lib.stride_tricks.sliding_window_view(cells, (_SIDE, _SIDE))
    return windows[::_STEP, ::_STEP].reshape(-1, _SIDE * _SIDE).astype(np.float32)
