"""Labels of one frame, and their transformations from the picture to the canvas."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from model.learn.clip_batch import Extent
from pipeline.datasets.shards import LabelledFrame

_VISIBLE_SHARE = 0.3  # a box is ignored if less of it than this is left in the view
_SMALLEST = 8.0  # pixels high; lower boxes are ignored
_GONE = 0.02  # a box is dropped if less of it than this is left in the view


@dataclass(frozen=True, slots=True)
class Labels:
    """Objects of one frame.

    Attributes:
        boxes: (n, 4) float32 corners in pixels.
        ids, classes: (n,) int64.
        ignore: (n,) bool: the box counts as neither object nor background.
        extent: (n,) uint8, an `Extent` for each box.
    """

    boxes: np.ndarray
    ids: np.ndarray
    classes: np.ndarray
    ignore: np.ndarray
    extent: np.ndarray

    @classmethod
    def of(cls, frame: LabelledFrame, extent: str) -> "Labels":
        """Labels in pixels of the picture; `extent` as of a `LabelledSequence`."""
        boxes = np.asarray(frame.boxes, np.float32).reshape(-1, 4)
        return cls(
            np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
            np.asarray(frame.ids, np.int64),
            np.asarray(frame.labels, np.int64),
            np.asarray(frame.ignore, bool),
            np.full(len(boxes), Extent[extent.upper()], np.uint8),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def heights(self) -> np.ndarray:
        """Heights (n,) of the boxes."""
        return self.boxes[:, 3] - self.boxes[:, 1]

    def chosen(self, which: np.ndarray) -> "Labels":
        """The objects of a mask or of indices."""
        return Labels(
            self.boxes[which],
            self.ids[which],
            self.classes[which],
            self.ignore[which],
            self.extent[which],
        )

    def moved(self, factor: tuple[float, float], shift: tuple[float, float]) -> "Labels":
        """Boxes scaled by (x, y) factors, then shifted by (x, y) pixels."""
        boxes = self.boxes * np.array(factor * 2, np.float32) + np.array(shift * 2, np.float32)
        return replace(self, boxes=boxes)

    def flipped(self, width: float) -> "Labels":
        """Boxes in a picture of this width mirrored left to right."""
        x1, y1, x2, y2 = self.boxes.T
        return replace(self, boxes=np.stack([width - x2, y1, width - x1, y2], 1))

    def clipped(self, width: float, height: float) -> "Labels":
        """Boxes cut at the borders of (0, 0, width, height).

        Boxes of which too little is left, or that are too small, are ignored. Boxes outside are
        dropped.
        """
        cut = np.clip(self.boxes, 0, np.array([width, height] * 2, np.float32))
        share = _areas(cut) / np.maximum(1e-6, _areas(self.boxes))
        small = cut[:, 3] - cut[:, 1] < _SMALLEST
        ignore = self.ignore | (share < _VISIBLE_SHARE) | small
        return replace(self, boxes=cut, ignore=ignore).chosen(share > _GONE)

    def covered(self, share: np.ndarray) -> "Labels":
        """Boxes of which a share (n,) is covered; they are ignored if too little is left."""
        return replace(self, ignore=self.ignore | (1 - share < _VISIBLE_SHARE))

    def median_height(self) -> float:
        """Median height of the objects that count, 0 where there are none."""
        heights = self.heights[~self.ignore]
        return float(np.median(heights)) if len(heights) else 0.0


def joined(parts: Sequence[Labels], *, renumber: bool = False) -> Labels:
    """Labels of several parts, at least one, as one; `renumber` gives all objects new ids."""
    ids = [part.ids for part in parts]
    return Labels(
        np.concatenate([part.boxes for part in parts]),
        np.arange(sum(map(len, parts))) if renumber else np.concatenate(ids),
        np.concatenate([part.classes for part in parts]),
        np.concatenate([part.ignore for part in parts]),
        np.concatenate([part.extent for part in parts]),
    )


def _areas(boxes: np.ndarray) -> np.ndarray:
    areas: np.ndarray = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return areas
