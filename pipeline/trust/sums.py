"""Sums over the rows of each track of a video, taken as the rows pass; no row is kept.

They are made of the finished rows alone, so a video gets the same sums however it was tracked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_EDGE = 0.005  # of the picture's side: a box that comes so near to an edge touches it
_POOREST = 0.25  # what the clearest picture is worth at quality 0, compared with 1.25 at quality 1
_CUT_OFF = 0.5  # what a box at an edge is worth as a picture of the person

RECORD = np.dtype(
    [
        ("boxes", "i8"),
        ("first_frame", "i8"),
        ("last_frame", "i8"),
        ("first_place", "i8"),  # among the frames of the video
        ("last_place", "i8"),
        ("first_s", "f8"),
        ("last_s", "f8"),
        ("first_middle", "f8", 2),
        ("last_middle", "f8", 2),
        ("path", "f8"),
        ("height", "f8"),  # sums over the boxes from here on, if nothing else is said
        ("score", "f8"),
        ("score_min", "f8"),
        ("quality", "f8"),
        ("quality_min", "f8"),
        ("edge", "f8"),
        ("overlap", "f8"),
        ("gaps", "i4"),
        ("gaps_s", "f8"),
        ("gap_longest_s", "f8"),
        ("best", "f8"),
        ("best_frame", "i8"),
        ("best_s", "f8"),
        ("best_box", "f4", 4),
        ("best_class", "i2"),
    ]
)
"""What is known of a track."""


class TrackSums:
    """Sums over the rows of each track.

    Attributes:
        classes: Names of classes, in the order in which they were met.
    """

    def __init__(self, size: tuple[int, int], frame_index: Array, quality: Array) -> None:
        """Nothing is summed up yet.

        Args:
            size: Width and height of the picture, in pixels.
            frame_index: (N,) of all frames of the video that have a row, ascending.
            quality: (N,) of these.
        """
        self._size = np.array(size, np.float64)
        self._frame_index, self._quality = frame_index, quality
        self._records = np.zeros(0, RECORD)
        self.classes: list[str] = []

    @property
    def ids(self) -> Array:
        """Ids of all tracks, ascending."""
        return np.flatnonzero(self._records["boxes"])

    @property
    def records(self) -> Array:
        """A `RECORD` of each track, in the order of `ids`."""
        return self._records[self.ids]

    @property
    def height(self) -> int:
        """Height of the picture, in pixels."""
        return int(self._size[1])

    def add(self, rows: Mapping[str, Array]) -> None:
        """Add rows of `tracks`, by column.

        Args:
            rows: All rows of some frames, which follow those that were added before.
        """
        if not len(rows["track_id"]):
            return
        boxes = np.stack([rows[side] for side in "xywh"], axis=1).astype(np.float64)
        overlap = greatest_overlap(rows["frame_index"], boxes)
        order = np.lexsort((rows["frame_index"], rows["track_id"]))
        ids, boxes = rows["track_id"][order], boxes[order]
        frame, time_s = rows["frame_index"][order], rows["time_s"][order]
        score = rows["score"][order].astype(np.float64)
        place = np.searchsorted(self._frame_index, frame)
        quality = self._quality[place].astype(np.float64)
        starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
        own = ids[starts]
        self._begin(own, starts, frame, time_s, place, boxes)
        low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
        at_edge = ((low <= _EDGE * self._size) | (high >= (1 - _EDGE) * self._size)).any(axis=1)

        self._steps(own, starts, time_s, place, boxes)
        of = self._records
        of["last_frame"][own] = frame[_ends(starts, len(ids))]
        of["boxes"][own] += np.diff(np.r_[starts, len(ids)])
        sums = {
            "height": boxes[:, 3],
            "score": score,
            "quality": quality,
            "edge": at_edge,
            "overlap": overlap[order],
        }
        for name, values in sums.items():
            of[name][own] += np.add.reduceat(values.astype(np.float64), starts)
        for name, values in (("score", score), ("quality", quality)):
            least = np.minimum.reduceat(values, starts)
            of[f"{name}_min"][own] = np.minimum(of[f"{name}_min"][own], least)

        # The clearest picture of a person is large, sure, whole and in a good frame.
        value = np.sqrt(boxes[:, 2] * boxes[:, 3]) * score * (_POOREST + quality)
        value *= (1 - overlap[order]) * np.where(at_edge, _CUT_OFF, 1)
        best = np.lexsort((-frame, value, ids))[_ends(starts, len(ids))]  # the earliest of equals
        better = value[best] > of["best"][own]
        chosen, changed = best[better], own[better]
        of["best"][changed], of["best_frame"][changed] = value[chosen], frame[chosen]
        of["best_s"][changed], of["best_box"][changed] = time_s[chosen], boxes[chosen]
        of["best_class"][changed] = self._class_numbers(rows["class_name"][order][chosen])

    def _begin(
        self, own: Array, starts: Array, frame: Array, time_s: Array, place: Array, boxes: Array
    ) -> None:
        """Make records of the tracks that are new, and room for them."""
        if own[-1] >= len(self._records):
            self._records.resize(int(own[-1]) * 5 // 4 + 1, refcheck=False)
        of = self._records
        fresh = of["boxes"][own] == 0
        new, row = own[fresh], starts[fresh]
        middle = _middles(boxes[row])
        of["first_frame"][new] = frame[row]
        of["first_s"][new] = of["last_s"][new] = time_s[row]
        of["first_place"][new] = of["last_place"][new] = place[row]
        of["first_middle"][new] = of["last_middle"][new] = middle
        of["score_min"][new] = of["quality_min"][new] = np.inf
        of["best"][new] = -1  # below that of any box

    def _steps(self, own: Array, starts: Array, time_s: Array, place: Array, boxes: Array) -> None:
        """Add what lies between each box and the one before it. Rows by id and frame.

        The first box of a track counts as its own predecessor, in the same place at the same time.
        """
        of, ends = self._records, _ends(starts, len(place))
        middle = _middles(boxes)

        def before(values: Array, name: str) -> Array:
            shifted = np.roll(values, 1, axis=0)
            shifted[starts] = of[name][own]
            return shifted

        passed_s = time_s - before(time_s, "last_s")
        way = middle - before(middle, "last_middle")
        unseen = place - before(place, "last_place") > 1
        gap_s = np.where(unseen, passed_s, 0)
        of["path"][own] += np.add.reduceat(np.hypot(*way.T), starts)
        of["gaps"][own] += np.add.reduceat(unseen.astype(np.int32), starts)
        of["gaps_s"][own] += np.add.reduceat(gap_s, starts)
        longest = np.maximum.reduceat(gap_s, starts)
        of["gap_longest_s"][own] = np.maximum(of["gap_longest_s"][own], longest)
        of["last_s"][own], of["last_place"][own] = time_s[ends], place[ends]
        of["last_middle"][own] = middle[ends]

    def _class_numbers(self, names: Array) -> list[int]:
        """Numbers of classes by their names."""
        for name in dict.fromkeys(names.tolist()):
            if name not in self.classes:
                self.classes.append(name)
        return [self.classes.index(name) for name in names.tolist()]


def greatest_overlap(frame_index: Array, boxes: Array) -> Array:
    """The greatest share of each box that one other box of its frame covers, (R,).

    Args:
        frame_index: (R,) ascending.
        boxes: (R, 4) x, y, w, h.
    """
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    area = np.maximum(boxes[:, 2:].prod(axis=1), np.finfo(np.float64).tiny)
    covered = np.zeros(len(boxes))
    # Each row with the one so many rows further on, as long as some of these are of one frame.
    for apart in range(1, len(boxes)):
        here = np.flatnonzero(frame_index[apart:] == frame_index[:-apart])
        if not len(here):
            break
        other = here + apart
        sides = np.minimum(high[here], high[other]) - np.maximum(low[here], low[other])
        shared = np.clip(sides, 0, None).prod(axis=1)
        covered[here] = np.maximum(covered[here], shared / area[here])
        covered[other] = np.maximum(covered[other], shared / area[other])
    return np.minimum(covered, 1)


def _ends(starts: Array, count: int) -> Array:
    """Last row of each group, of groups that begin at some rows of so many."""
    return np.r_[starts[1:], count] - 1


def _middles(boxes: Array) -> Array:
    return boxes[:, :2] + boxes[:, 2:] / 2
