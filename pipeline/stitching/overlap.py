"""Tracks of two windows in the frames that both saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from model.net.geometry import pairwise_iou
from pipeline.stitching.looks import Array
from pipeline.stitching.window import Sights

# Boxes of one person in two windows are mostly the same detection, so they are nearly equal, and a
# smaller overlap in a frame counts as none. In poor pictures each window misses frames of its own,
# so less is asked of the mean.
_SAME_BOX, _LEAST_OVERLAP = 0.5, 0.25
_SIMILARITY = 0.2  # by what share appearance changes the value of a pair, where two are close


@dataclass(frozen=True, slots=True)
class OverlapMatch:
    """Tracks of the left and right window in the frames that they share.

    Attributes:
        left, right: Ids of the tracks that have a box in them, ascending.
        overlap: (L, R) mean overlap of each pair, later frames counting more.
        pairs: Index pairs of the tracks that are one person.
        conflicts: Index pairs that overlap as much as a pair needs, and lost one to a better pair.
    """

    left: Array
    right: Array
    overlap: Array
    pairs: list[tuple[int, int]]
    conflicts: list[tuple[int, int]]


def match_overlap(left: Sights, right: Sights, similarity: Array) -> OverlapMatch:
    """Match the tracks of two windows in the frames that they share.

    The best matching in total is taken (Hungarian method). A later frame counts more, because what
    counts is who is who at the seam, at its end. Whether two tracks can be one person is asked of
    the frames in which both last, because a window may lose a person early or find one late. Which
    of several pairs is taken is asked of all frames in which one of the two is seen, so that a
    track that ended early in them gives way to one that goes on to the seam.

    Args:
        left, right: The same frames in both windows.
        similarity: (L, R) of the appearance of their tracks, in the order of their ids; 0 where it
            is not known.
    """
    lefts, rights = np.unique(left.track_id), np.unique(right.track_id)
    overlap, share = _mean_overlaps(left, right, lefts, rights)
    good = overlap >= _LEAST_OVERLAP
    value = np.where(good, share * (1 + _SIMILARITY * similarity), 0.0)
    rows, columns = linear_sum_assignment(value, maximize=True)
    pairs = [(i, j) for i, j in zip(rows.tolist(), columns.tolist(), strict=True) if good[i, j]]
    conflicts = set(zip(*(side.tolist() for side in good.nonzero()), strict=True)) - set(pairs)
    return OverlapMatch(lefts, rights, overlap, pairs, sorted(conflicts))


def _mean_overlaps(left: Sights, right: Sights, lefts: Array, rights: Array) -> tuple[Array, Array]:
    """Two means (L, R) of the overlaps of each pair of tracks, weighted by the time.

    The first is over the frames in which both last, the second over all in which one is seen. A
    frame in which only one is seen counts as one without overlap.
    """
    count = len(left.frame_index)
    left_lasts, right_lasts = _lasting(left, lefts, count), _lasting(right, rights, count)
    total = np.zeros((len(lefts), len(rights)))
    both, either = np.zeros_like(total), np.zeros_like(total)
    for frame in range(count):
        a, b = left.frame == frame, right.frame == frame
        a_row, b_row = (
            np.searchsorted(lefts, left.track_id[a]),
            np.searchsorted(rights, right.track_id[b]),
        )
        seen = np.zeros_like(total, dtype=bool)
        seen[a_row] = True
        seen[:, b_row] = True
        either[seen] += frame + 1
        both[seen & left_lasts[:, frame, None] & right_lasts[:, frame]] += frame + 1
        overlap = _iou(left.boxes[a], right.boxes[b])
        total[np.ix_(a_row, b_row)] += (frame + 1) * np.where(overlap >= _SAME_BOX, overlap, 0.0)
    return _divided(total, both), _divided(total, either)


def _divided(total: Array, weight: Array) -> Array:
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)


def _lasting(sights: Sights, ids: Array, count: int) -> Array:
    """(N, F) bool, whether a frame lies between the first and last box of each track."""
    lasts = np.zeros((len(ids), count), bool)
    for row, i in enumerate(ids):
        frames = sights.frame[sights.track_id == i]
        lasts[row, frames.min() : frames.max() + 1] = True
    return lasts


def _iou(a: Array, b: Array) -> Array:
    """(N, M) overlaps of boxes (N, 4) and (M, 4), x, y, w, h."""
    corners = [torch.from_numpy(np.concatenate([x[:, :2], x[:, :2] + x[:, 2:]], 1)) for x in (a, b)]
    return pairwise_iou(*corners).numpy()
