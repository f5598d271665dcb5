"""Boxes of a sequence: ground truth, detections or tracks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

PEDESTRIAN = 1


@dataclass(frozen=True, slots=True)
class Boxes:
    """Boxes of a sequence as columns, a row per box, sorted by frame.

    Attributes:
        frame: (N,) int64, from 1.
        track_id: (N,) int64, -1 for boxes without identity.
        xywh: (N, 4) float64, pixels.
        confidence: (N,) float64, a score; in ground truth 0 means "do not evaluate".
        class_id: (N,) int64 in MOT16's numbering, 1 is a pedestrian.
        visibility: (N,) float64 in [0, 1]; 1 if the file does not have it.
    """

    frame: np.ndarray[Any, Any]
    track_id: np.ndarray[Any, Any]
    xywh: np.ndarray[Any, Any]
    confidence: np.ndarray[Any, Any]
    class_id: np.ndarray[Any, Any]
    visibility: np.ndarray[Any, Any]

    @classmethod
    def of(
        cls,
        frame: Any,
        track_id: Any,
        xywh: Any,
        confidence: Any = 1.0,
        class_id: Any = PEDESTRIAN,
        visibility: Any = 1.0,
    ) -> Boxes:
        """Make boxes of columns, with rows in any order; a scalar fills its whole column."""
        frame = np.asarray(frame, dtype=np.int64).reshape(-1)
        order = np.argsort(frame, kind="stable")
        shape = frame.shape
        return cls(
            frame[order],
            np.broadcast_to(np.asarray(track_id, dtype=np.int64), shape)[order],
            np.asarray(xywh, dtype=np.float64).reshape(-1, 4)[order],
            np.broadcast_to(np.asarray(confidence, dtype=np.float64), shape)[order],
            np.broadcast_to(np.asarray(class_id, dtype=np.int64), shape)[order],
            np.broadcast_to(np.asarray(visibility, dtype=np.float64), shape)[order],
        )

    def __len__(self) -> int:
        """Number of boxes."""
        return len(self.frame)

    def __getitem__(self, rows: Any) -> Boxes:
        """The rows chosen by a mask, a slice or indices, in this order."""
        return Boxes(
            self.frame[rows],
            self.track_id[rows],
            self.xywh[rows],
            self.confidence[rows],
            self.class_id[rows],
            self.visibility[rows],
        )

    def at(self, frame: int) -> Boxes:
        """The boxes of one frame."""
        first, last = np.searchsorted(self.frame, (frame, frame + 1))
        return self[first:last]


def evaluated(gt: Boxes) -> Boxes:
    """The ground truth that is evaluated: pedestrians whose confidence is not 0."""
    return gt[(gt.class_id == PEDESTRIAN) & (gt.confidence != 0)]


def as_written(boxes: Boxes) -> Boxes:
    """Boxes as in a result file, sorted by frame and id.

    Pixels are rounded to two decimals and scores to four. Widths and heights are at least 0.01,
    because a file with an empty box is refused.
    """
    boxes = boxes[np.lexsort((boxes.track_id, boxes.frame))]
    xywh = np.round(boxes.xywh, 2)
    xywh[:, 2:] = np.maximum(xywh[:, 2:], 0.01)
    return replace(boxes, xywh=xywh, confidence=np.round(boxes.confidence, 4))
