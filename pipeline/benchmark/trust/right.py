"""Which tracks are right: one real person with one identity.

A track is right if at least half of its boxes lie on one person of the ground truth, and at most a
tenth on others. A box lies on the person that it is matched to, by the greatest total overlap in
its frame, with an intersection over union of at least 0.5.

Boxes on what the ground truth has as neither person nor background are left out first, by the rule
of MOT16 (`metrics.preprocess`). A track that loses more than half of its boxes so is neither right
nor wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from pipeline.benchmark.metrics import Array, iou_matrix, preprocess
from pipeline.datasets.boxes import Boxes

OWN_SHARE, OTHERS_SHARE = 0.5, 0.1
_MATCH_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Judged:
    """What the ground truth says of some tracks.

    Attributes:
        counted: (T,) bool: whether a track is right or wrong, and not left out.
        right: (T,) bool.
    """

    counted: Array
    right: Array


def judge(gt: Boxes, tracks: Boxes, ids: Array) -> Judged:
    """Judge tracks by ground truth.

    Args:
        gt: Of the same frames, with all that it says about what is not to be evaluated.
        tracks: Boxes of the tracks.
        ids: (T,) the ids to judge; each has at least one box.
    """
    people, kept = preprocess(gt, tracks)
    matched = np.full(len(kept), -1)
    for frame in np.unique(kept.frame):
        rows = np.flatnonzero(kept.frame == frame)
        truth = people.at(frame)
        overlap = iou_matrix(truth.xywh, kept.xywh[rows])
        overlap[overlap < _MATCH_IOU] = 0
        of, column = linear_sum_assignment(-overlap)
        good = overlap[of, column] > 0
        matched[rows[column[good]]] = truth.track_id[of[good]]
    counted, right = np.zeros(len(ids), bool), np.zeros(len(ids), bool)
    for place, track_id in enumerate(ids.tolist()):
        own = matched[kept.track_id == track_id]
        counted[place] = 2 * len(own) >= np.count_nonzero(tracks.track_id == track_id)
        if not counted[place]:
            continue
        _, boxes = np.unique(own[own >= 0], return_counts=True)
        most = boxes.max(initial=0)
        others = boxes.sum() - most
        right[place] = most >= OWN_SHARE * len(own) and others <= OTHERS_SHARE * len(own)
    return Judged(counted, right)
