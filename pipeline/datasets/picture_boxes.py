"""Ground truth and detections of one picture, as input of all scores of single pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """Detections in one picture.

    Attributes:
        xywh: (M, 4) x, y, w, h in pixels of the picture; width and height are above 0.
        scores: (M,) in [0, 1].
    """

    xywh: Array
    scores: Array

    def above(self, score: float) -> Found:
        """Detections at or above a score."""
        kept = self.scores >= score
        return Found(self.xywh[kept], self.scores[kept])


@dataclass(frozen=True, slots=True)
class People:
    """Ground truth of one picture.

    Attributes:
        xywh: (N, 4) x, y, w, h in pixels of the picture.
        ignored: (N,) bool. An ignored box is neither person nor background; a detection in it
            counts neither for nor against (`iscrowd` of COCO).
    """

    xywh: Array
    ignored: Array
