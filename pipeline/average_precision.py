"""Scores of detections without identity: average precision and recall, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.boxes import PEDESTRIAN, Boxes
from pipeline.metrics import DISTRACTORS

_MATCH_IOU = 0.5
_MAX_DETECTIONS = 500


@dataclass(frozen=True, slots=True)
class DetectionScores:
    """How well detections find the ground truth's boxes, in percent."""

    ap50: float
    recall: float  # of all detections, however low their score
    recall_at_score: float  # of those at or above the score asked for


def detection_scores(
    sequences: Mapping[str, tuple[Boxes, Boxes, int]], score: float, preprocessing: bool
) -> DetectionScores:
    """Scores of detections over all frames of (all ground truth, detections, length in frames).

    `score`: recall is also given for detections at or above it. With `preprocessing`, detections
    on distractors count neither for nor against.
    """
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    images = 0
    for gt, detections, length in sequences.values():
        ignored = np.isin(gt.class_id, DISTRACTORS) & preprocessing
        counted = (gt.class_id == PEDESTRIAN) & (gt.confidence != 0)
        for i in np.flatnonzero(counted | ignored):
            truth.append(
                {
                    "id": len(truth) + 1,
                    "image_id": images + int(gt.frame[i]),
                    "category_id": PEDESTRIAN,
                    "bbox": gt.xywh[i].tolist(),
                    "area": float(gt.xywh[i, 2:].prod()),
                    "iscrowd": int(ignored[i]),
                }
            )
        found += [
            {
                "image_id": images + int(detections.frame[i]),
                "category_id": PEDESTRIAN,
                "bbox": detections.xywh[i].tolist(),
                "score": float(detections.confidence[i]),
            }
            for i in range(len(detections))
        ]
        images += length
    ap50, recall = _coco(truth, found, images)
    _, recall_at_score = _coco(truth, [d for d in found if d["score"] >= score], images)
    return DetectionScores(ap50, recall, recall_at_score)


def _coco(
    truth: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], images: int
) -> tuple[float, float]:
    """AP and recall at 0.5, percent, by pycocotools (which prints; what it says is dropped)."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if not any(not box["iscrowd"] for box in truth):
        return float("nan"), float("nan")
    if not found:
        return 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(1, images + 1)],
            "annotations": [dict(box) for box in truth],
            "categories": [{"id": PEDESTRIAN, "name": "person"}],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes([dict(box) for box in found]), "bbox")
        evaluation.params.iouThrs = np.array([_MATCH_IOU])
        evaluation.params.maxDets = [_MAX_DETECTIONS]
        evaluation.params.areaRng = [[0, 1e10]]
        evaluation.params.areaRngLbl = ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    return (
        100 * float(evaluation.eval["precision"].mean()),
        100 * float(evaluation.eval["recall"].mean()),
    )
