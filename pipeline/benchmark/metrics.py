"""Scores against ground truth, by the reference implementations.

MOTA, IDF1, MOTP, switches, fragmentations, mostly tracked and lost: motmetrics. HOTA, DetA, AssA,
LocA: trackeval. The intersection over union and the MOT16/17 preprocessing rule are our own code.

Ratios are percent; NaN if a figure has no value (localisation without a match). A match
needs an intersection over union of at least 0.5 (HOTA averages over its own thresholds).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import motmetrics
import numpy as np

from pipeline.datasets.boxes import Boxes, evaluated

Array = np.ndarray[Any, Any]

# MOT16/17: person on vehicle, static person, distractor, reflection. Tracks of them count neither
# as hits nor as errors.
DISTRACTORS = (2, 7, 8, 12)
_MATCH_IOU = 0.5
_EPSILON = float(np.finfo(float).eps)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingScores:
    """Scores of tracks against ground truth; ratios in percent, the rest are counts.

    Attributes:
        hota: higher order tracking accuracy: detection and association weigh the same. The mean
            over thresholds of the intersection over union from 0.05 to 0.95.
        det_a: the part of HOTA that detection has.
        ass_a: the part of HOTA that association has: whether a person keeps one track.
        loc_a: how well boxes lie where they match, by HOTA.
        mota: 100, less the misses, false positives and switches for each labelled box. It can be
            negative.
        idf1: share of boxes whose identity is right, when each person is given the one track that
            fits best.
        motp: mean intersection over union of matched boxes.
        id_switches: how often the track of a person changes.
        fragmentations: how often a person is lost and found again.
        mostly_tracked: people with a track in at least 80 % of their frames.
        mostly_lost: people with a track in less than 20 % of their frames.
        false_positives: boxes of tracks where there is no person.
        false_negatives: people in a frame without a box.
        gt_boxes: labelled boxes.
        gt_tracks: labelled people.
    """

    hota: float
    det_a: float
    ass_a: float
    loc_a: float
    mota: float
    idf1: float
    motp: float
    id_switches: int
    fragmentations: int
    mostly_tracked: int
    mostly_lost: int
    false_positives: int
    false_negatives: int
    gt_boxes: int
    gt_tracks: int


def iou_matrix(a: Array, b: Array) -> Array:
    """Intersection over union of boxes a (N, 4) and b (M, 4), both x, y, w, h: (N, M)."""
    a, b = a[:, None, :], b[None, :, :]
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    union = a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def preprocess(gt: Boxes, predictions: Boxes) -> tuple[Boxes, Boxes]:
    """MOT16/17's rule: the evaluated ground truth, and predictions without those on distractors.

    Predictions are matched at 0.5 to all ground truth of any class or flag. Those whose match is a
    distractor are dropped.
    """
    from scipy.optimize import linear_sum_assignment

    keep = np.ones(len(predictions), dtype=bool)
    for frame in np.unique(gt.frame[np.isin(gt.class_id, DISTRACTORS)]):
        truth = gt.at(frame)
        rows = np.flatnonzero(predictions.frame == frame)
        similarity = iou_matrix(truth.xywh, predictions.xywh[rows])
        similarity[similarity < _MATCH_IOU - _EPSILON] = 0
        matched, columns = linear_sum_assignment(-similarity)
        on_distractor = np.isin(truth.class_id[matched], DISTRACTORS)
        keep[rows[columns[on_distractor & (similarity[matched, columns] > _EPSILON)]]] = False
    return evaluated(gt), predictions[keep]


def tracking_scores(
    sequences: Mapping[str, tuple[Boxes, Boxes]],
) -> tuple[dict[str, TrackingScores], TrackingScores]:
    """Scores of (evaluated ground truth, predictions) by sequence, and of all of them combined.

    Raises:
        ValueError: No sequence is given, or an id is twice in one frame.
    """
    if not sequences:
        raise ValueError("tracking scores: no sequence to evaluate")
    from trackeval.metrics import HOTA

    hota = HOTA()
    accumulators, hotas = [], {}
    for name, (gt, predictions) in sequences.items():
        frames, similarity = _similarities(name, gt, predictions)
        accumulators.append(_accumulate(frames, similarity))
        hotas[name] = hota.eval_sequence(_trackeval_data(name, gt, predictions, frames, similarity))
    clear = motmetrics.metrics.create().compute_many(
        accumulators,
        names=list(sequences),
        metrics=[*motmetrics.metrics.motchallenge_metrics, "num_objects"],
        generate_overall=len(sequences) > 1,  # for one sequence it would be the same
    )
    clear = clear.to_dict("index")
    each = {name: _scores(clear[name], hotas[name]) for name in sequences}
    if len(each) == 1:
        return each, next(iter(each.values()))
    return each, _scores(clear["OVERALL"], hota.combine_sequences(hotas))


_Frame = tuple[Array, Array]


def _similarities(name: str, gt: Boxes, predictions: Boxes) -> tuple[list[_Frame], list[Array]]:
    """For each frame from the first to the last with a box: ids on both sides; their overlap."""
    frames, similarity = [], []
    last = max([0, *gt.frame[-1:], *predictions.frame[-1:]])
    for number in range(1, last + 1):
        truth, guess = gt.at(number), predictions.at(number)
        for ids, what in ((truth.track_id, "ground truth"), (guess.track_id, "predictions")):
            if len(np.unique(ids)) != len(ids):
                raise ValueError(f"{name}, frame {number}: an id stands twice in the {what}")
        frames.append((truth.track_id, guess.track_id))
        similarity.append(iou_matrix(truth.xywh, guess.xywh))
    return frames, similarity


def _accumulate(frames: list[_Frame], similarity: list[Array]) -> motmetrics.MOTAccumulator:
    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for (truth, guess), overlap in zip(frames, similarity, strict=True):
        distance = np.where(overlap >= _MATCH_IOU - _EPSILON, 1 - overlap, np.nan)
        accumulator.update(truth, guess, distance)
    return accumulator


def _trackeval_data(
    name: str, gt: Boxes, predictions: Boxes, frames: list[_Frame], similarity: list[Array]
) -> dict[str, Any]:
    """What trackeval's metrics take; ids are renumbered from 0 without gaps."""
    gt_ids, guess_ids = np.unique(gt.track_id), np.unique(predictions.track_id)
    return {
        "seq": name,
        "num_timesteps": len(frames),
        "num_gt_ids": len(gt_ids),
        "num_tracker_ids": len(guess_ids),
        "num_gt_dets": len(gt),
        "num_tracker_dets": len(predictions),
        "gt_ids": [np.searchsorted(gt_ids, ids) for ids, _ in frames],
        "tracker_ids": [np.searchsorted(guess_ids, ids) for _, ids in frames],
        "similarity_scores": similarity,
    }


def _scores(clear: Mapping[str, Any], hota: Mapping[str, Any]) -> TrackingScores:
    matched = float(hota["HOTA_TP"].sum()) > 0
    return TrackingScores(
        hota=100 * float(np.mean(hota["HOTA"])),
        det_a=100 * float(np.mean(hota["DetA"])),
        ass_a=100 * float(np.mean(hota["AssA"])),
        loc_a=100 * float(np.mean(hota["LocA"])) if matched else float("nan"),
        mota=100 * float(clear["mota"]),
        idf1=100 * float(clear["idf1"]),
        motp=100 * (1 - float(clear["motp"])),
        id_switches=int(clear["num_switches"]),
        fragmentations=int(clear["num_fragmentations"]),
        mostly_tracked=int(clear["mostly_tracked"]),
        mostly_lost=int(clear["mostly_lost"]),
        false_positives=int(clear["num_false_positives"]),
        false_negatives=int(clear["num_misses"]),
        gt_boxes=int(clear["num_objects"]),
        gt_tracks=int(clear["num_unique_objects"]),
    )
