"""What is made unrecognisable on each frame, so that a person stays so for a whole track."""

from __future__ import annotations

import numpy as np

from pipeline.report.config import Blur
from pipeline.report.overlays.planes import Planes
from pipeline.report.overlays.rows import Array, OverlayRows

_SEEN_MARGIN, _GUESSED_MARGIN = 0.1, 0.25  # of the box, on each side
_HOLD_S = 0.5  # before the first and after the last box of a track
_HEAD_HEIGHT, _HEAD_WIDTHS = 0.3, 0.8  # of the box's height; of its width, for those who sit
_CELLS = 3  # across a box, so that a head has about one
_LEAST_CELL = 0.125  # of the box's height


class Hidden:
    """Boxes to hide, by frame.

    They are those of all tracks. Where a track has no box for some frames, one is interpolated.
    For half a second before its first and after its last box, that box is hidden too, within the
    same shot.
    """

    def __init__(self, rows: OverlayRows, blur: Blur) -> None:
        self._heads = blur == "heads"
        parts = [] if blur == "none" else [_seen(rows), _between(rows), _held(rows)]
        frame, boxes = (
            np.concatenate([part[n] for part in parts]) if parts else empty
            for n, empty in enumerate((np.zeros(0, np.int64), np.zeros((0, 4))))
        )
        order = np.argsort(frame, kind="stable")
        self._boxes = boxes[order]
        self._first = np.searchsorted(frame[order], np.arange(len(rows.time_s) + 1))

    def boxes(self, frame: int) -> Array:
        """Boxes to hide on a frame, (N, 4) x, y, w, h with their margins."""
        found: Array = self._boxes[self._first[frame] : self._first[frame + 1]]
        return found

    def hide(self, picture: Planes, frame: int, scale: float) -> None:
        """Hide them on a picture that is so many times as large as the displayed one."""
        for x, y, w, h in (self.boxes(frame) * scale).tolist():
            high = min(h, max(_HEAD_HEIGHT * h, _HEAD_WIDTHS * w)) if self._heads else h
            picture.mosaic((x, y, x + w, y + high), max(w / _CELLS, _LEAST_CELL * h, 4))


def _grown(boxes: Array, margin: float) -> Array:
    x, y, w, h = boxes.astype(np.float64).T
    return np.stack([x - margin * w, y - margin * h, (1 + 2 * margin) * w, (1 + 2 * margin) * h], 1)


def _seen(rows: OverlayRows) -> tuple[Array, Array]:
    return rows.frame, _grown(rows.boxes, _SEEN_MARGIN)


def _between(rows: OverlayRows) -> tuple[Array, Array]:
    """Boxes for the frames between two boxes of a track."""
    missing = np.diff(rows.frame) - 1
    missing[rows.track_id[1:] != rows.track_id[:-1]] = 0
    before = np.repeat(np.arange(len(missing)), np.maximum(missing, 0))
    starts = np.cumsum(np.maximum(missing, 0)) - np.maximum(missing, 0)
    step = np.arange(len(before)) - starts[before] + 1
    share = (step / (missing[before] + 1))[:, None]
    boxes = (1 - share) * rows.boxes[before] + share * rows.boxes[before + 1]
    return rows.frame[before] + step, _grown(boxes, _GUESSED_MARGIN)


def _held(rows: OverlayRows) -> tuple[Array, Array]:
    """First and last boxes of tracks, for the frames shortly before and after."""
    shot = np.cumsum(rows.cut)
    new = np.flatnonzero(np.r_[True, rows.track_id[1:] != rows.track_id[:-1]][: len(rows.frame)])
    ends = np.r_[new[1:], len(rows.frame)] - 1 if len(new) else new
    frames, boxes = [np.zeros(0, np.int64)], [np.zeros((0, 4), np.float32)]
    for row, after in [(r, False) for r in new.tolist()] + [(r, True) for r in ends.tolist()]:
        at = int(rows.frame[row])
        low, high = np.searchsorted(
            rows.time_s, (rows.time_s[at] - _HOLD_S, rows.time_s[at] + _HOLD_S)
        )
        near = np.arange(at + 1, high) if after else np.arange(low, at)
        near = near[shot[near] == shot[at]]
        frames.append(near)
        boxes.append(np.repeat(rows.boxes[row : row + 1], len(near), axis=0))
    return np.concatenate(frames), _grown(np.concatenate(boxes), _GUESSED_MARGIN)
