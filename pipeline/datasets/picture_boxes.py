"""The people of one picture and what was found in it, as all scores of single pictures take it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """Detections in one picture.

    Attributes:
        xywh: (M, 4) x, y, w, h in pixels of the picture, none of them empty.
        scores: (M,) in [0, 1].
    """

    xywh: Array
    scores: Array

    def above(self, score: float) -> Found:
        """Those at or above a score."""
        kept = self.scores >= score
        return Found(self.xywh[kept], self.scores[kept])


@dataclass(frozen=True, slots=True)
class People:
    """Who is in one picture.

    Attributes:
        xywh: (N, 4) x, y, w, h in pixels of the picture.
        ignored: (N,) bool; such a box is neither person nor background, and a detection that lies
            in it counts neither for nor against (`iscrowd` of COCO).
    """

    xywh: Array
    ignored: Array
