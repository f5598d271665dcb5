"""Finds the frames of quiet stretches: those that show nothing that was not there before."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from model.net.quality import STATISTICS, frame_statistics

# Luma is averaged to cells, the longer side of the picture being at most this many. Four by four
# cells are a block: a fortieth of the picture, about as large as the smallest person that counts.
_CELLS = 160
_BLOCK = 4

# Root mean squares in grey levels over the cells of a block.
_LEAST_NOISE = 1.0  # cells are rounded to whole levels
_CODEC_NOISE = 2.5  # what codecs do to a block that shows nothing new
_CHANGED = 3.0  # times its noise: a block that has changed

# Up and down steps of a block's noise in each frame. They balance at its upper quartile.
_RISE, _FALL = 1.06, 0.98

_SETTLE_S = 0.2  # a frame so soon after a change is no still frame


@dataclass(frozen=True, slots=True)
class StillState:
    """All that decides what a `StillDetector` says next; nobody changes its arrays.

    Attributes:
        reference: (rows, columns) float32 cells of the last frame that was not still.
        noise: (block rows, block columns) float32.
        most_noise: bound on the noise of a block.
        second: that of the last frame.
        changed_s: time of the last change.
    """

    reference: np.ndarray
    noise: np.ndarray
    most_noise: float
    second: int
    changed_s: float


class StillDetector:
    """Compares the frames of one video, in order, with the last one that was not still.

    A frame is still if no block differs from that frame by more than the noise of this block
    explains, and the last change is 0.2 s ago. The first frame of every second is never still.

    The noise of a block is learned from its own differences, as an upper quartile, because a
    codec makes more of it on edges than on walls. Motion raises it too, so it is bounded by what
    codecs do, plus what the measured noise of the sensor leaves after averaging. A change of all
    blocks by the same amount is none: exposure and light do that.
    """

    def __init__(self, state: StillState | None = None) -> None:
        """Start after the frame of a state, or before the first frame."""
        self._scaler = VideoReformatter()
        self._reference = state.reference if state else None
        self._noise = state.noise if state else np.zeros(0, np.float32)
        self._most_noise = state.most_noise if state else 0.0
        self._second = state.second if state else -1
        self._changed_s = state.changed_s if state else -math.inf

    def state(self) -> StillState | None:
        """State after the last frame; None before the first."""
        if self._reference is None:
            return None
        return StillState(
            self._reference, self._noise, self._most_noise, self._second, self._changed_s
        )

    def is_still(
        self, picture: VideoFrame, time_s: float, patches: np.ndarray, cut: bool = False
    ) -> bool:
        """Whether the next frame need not be encoded.

        Args:
            picture: as stored.
            time_s: seconds since the start of the video; must not decrease.
            patches: (8, 64, 64) uint8 luma of the picture, for the noise of the sensor.
            cut: whether a new shot begins with it; then it is not still.
        """
        cells = self._cells(picture)
        before, self._second = self._second, math.floor(time_s)
        if self._reference is None or self._reference.shape != cells.shape:
            self._noise = np.full(_block_rms(cells).shape, _LEAST_NOISE, np.float32)
            changed = True
        else:
            changed = self._has_changed(cells) or cut
        if changed:
            self._changed_s = time_s
        first_of_second = self._second > before
        if first_of_second:
            self._most_noise = _CODEC_NOISE + self._sensor_noise(picture, cells, patches)
        if not changed and not first_of_second and time_s - self._changed_s > _SETTLE_S:
            return True
        self._reference = cells
        return False

    def _has_changed(self, cells: np.ndarray) -> bool:
        difference = cells - self._reference
        difference -= np.median(difference[::2, ::2])
        rms = _block_rms(difference)
        changed = bool((rms > _CHANGED * self._noise).any())
        # A new array, because states share the old one.
        noise = self._noise * np.where(rms > self._noise, np.float32(_RISE), np.float32(_FALL))
        self._noise = np.clip(noise, _LEAST_NOISE, self._most_noise, out=noise)
        return changed

    def _cells(self, picture: VideoFrame) -> np.ndarray:
        """Mean luma of the cells, (rows, columns) float32 in levels from 0 to 255."""
        scale = min(1.0, _CELLS / max(picture.width, picture.height))
        width, height = (
            max(1, round(side * scale / _BLOCK)) * _BLOCK
            for side in (picture.width, picture.height)
        )
        small = self._scaler.reformat(
            picture, width=width, height=height, format="gray", interpolation="AREA", threads=1
        )
        return small.to_ndarray().astype(np.float32)

    @staticmethod
    def _sensor_noise(picture: VideoFrame, cells: np.ndarray, patches: np.ndarray) -> float:
        """Standard deviation of the difference of two cells by white noise, in levels."""
        statistics = frame_statistics(torch.from_numpy(patches)[None])[0]
        sigma = 255 * float(statistics[STATISTICS.index("noise")])
        pixels = max(1.0, picture.width * picture.height / cells.size)
        return sigma * math.sqrt(2 / pixels)


def _block_rms(cells: np.ndarray) -> np.ndarray:
    """Root mean square of each block, for (rows, columns) that are multiples of a block."""
    rows, columns = cells.shape
    blocks = cells.reshape(rows // _BLOCK, _BLOCK, columns // _BLOCK, _BLOCK)
    return np.sqrt(np.square(blocks).mean(axis=(1, 3), dtype=np.float32))
