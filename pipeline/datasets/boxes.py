"""Boxes over a sequence, as ground truth, detections and tracks all are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

PEDESTRIAN = 1


@dataclass(frozen=True, slots=True)
class Boxes:
    """Boxes over a sequence, one a row, sorted by frame.

    frame (N,) int64 from 1; track_id (N,) int64, -1 where boxes have no identity; xywh (N, 4)
    float64; confidence (N,) float64: a score, or in ground truth 0 for "do not evaluate";
    class_id (N,) int64 in MOT16's numbering, 1 = pedestrian; visibility (N,) float64 in [0, 1], 1
    where a file does not say.
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
        """From columns in any order of rows; scalars stand for a whole column."""
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
        """How many boxes."""
        return len(self.frame)

    def __getitem__(self, rows: Any) -> Boxes:
        """The rows a mask, a slice or indices pick, in their order."""
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
    """The ground truth that counts: pedestrians that are not flagged to be left out."""
    return gt[(gt.class_id == PEDESTRIAN) & (gt.confidence != 0)]


def as_written(boxes: Boxes) -> Boxes:
    """Boxes as a result file holds them, sorted by frame and id.

    Pixels have two decimals and scores four; what is thinner than the last decimal is as thin as
    that, because a file with an empty box is refused.
    """
    boxes = boxes[np.lexsort((boxes.track_id, boxes.frame))]
    xywh = np.round(boxes.xywh, 2)
    xywh[:, 2:] = np.maximum(xywh[:, 2:], 0.01)
    return replace(boxes, xywh=xywh, confidence=np.round(boxes.confidence, 4))
