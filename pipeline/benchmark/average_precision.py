"""Scores of detections without identity: average precision and recall, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.benchmark.metrics import DISTRACTORS, iou_matrix
from pipeline.datasets.boxes import PEDESTRIAN, Boxes
from pipeline.datasets.picture_boxes import Found, People

Array = np.ndarray[Any, Any]

_MATCH_IOU = 0.5
_MAX_DETECTIONS = 500
_ANY = (0.0, 1e10)
COCO_IOUS = np.linspace(0.5, 0.95, 10)

SIZES: dict[str, tuple[float, float]] = {
    "small": (0, float(np.nextafter(32, 0))),
    "medium": (32, 96),
    "large": (float(np.nextafter(96, 97)), 1e10),
}
"""Bands of a person's height in pixels on the student's canvas, both ends inclusive."""


@dataclass(frozen=True, slots=True)
class Matched:
    """Detections in one picture, best first, matched with its people.

    Attributes:
        xywh: (M, 4) boxes of the detections, in pixels of the picture.
        scores: (M,).
        right: (M, T) bool, whether a detection has found a person at each of `COCO_IOUS`.
        ignored: (M, T) bool, whether it counts neither for nor against.
    """

    xywh: Array
    scores: Array
    right: Array
    ignored: Array


@dataclass(frozen=True, slots=True)
class DetectionScores:
    """Scores of detections against ground truth, in percent.

    Attributes:
        ap50: average precision of detections, with matches at an intersection over union of 0.5.
        recall: share of people who are found, by detections with any score.
        recall_at_score: share of people who are found, by detections with a score at or above that
            from which the tracker trusts them.
    """

    ap50: float
    recall: float
    recall_at_score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureScores:
    """Scores of detections in pictures, in percent; NaN without people.

    Attributes:
        people: boxes to be found. people_small, people_medium, people_large: of each of `SIZES`.
        ap50: average precision at an overlap of 0.5 (COCO's, at 101 points of recall).
        ap: its mean over overlaps of 0.5, 0.55, …, 0.95.
        ap50_small, ap50_medium, ap50_large: of each of `SIZES`.
        recall, precision: of detections at or above a given score, at an overlap of 0.5; precision
            is NaN without such detections.
        overlap: median intersection over union of detections at or above that score with the
            people they have found; NaN if they have found none. Where that of several detectors
            is low, boxes of the ground truth are loose.
    """

    people: int
    people_small: int
    people_medium: int
    people_large: int
    ap50: float
    ap: float
    ap50_small: float
    ap50_medium: float
    ap50_large: float
    recall: float
    precision: float
    overlap: float


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
            area = float(gt.xywh[i, 2:].prod())
            truth.append(
                _person(len(truth) + 1, images + int(gt.frame[i]), gt.xywh[i], area, ignored[i])
            )
        found += [
            _detection(
                images + int(detections.frame[i]), detections.xywh[i], detections.confidence[i]
            )
            for i in range(len(detections))
        ]
        images += length
    ap50, recall = _coco(truth, found, images)
    _, recall_at_score = _coco(truth, [d for d in found if d["score"] >= score], images)
    return DetectionScores(ap50, recall, recall_at_score)


def picture_scores(pictures: Sequence[tuple[People, Found, float]], score: float) -> PictureScores:
    """Scores of detections in single pictures, with people or without.

    Args:
        pictures: ground truth, detections, and canvas pixels per picture pixel, vertically:
            sizes are measured on the canvas.
        score: `recall` and `precision` are of detections at or above it.
    """
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image, (people, seen, scale) in enumerate(pictures, 1):
        for box, ignored in zip(people.xywh, people.ignored, strict=True):
            truth.append(_person(len(truth) + 1, image, box, box[3] * scale, ignored))
        found += [
            _detection(image, box, value) | {"size": float(box[3] * scale)}
            for box, value in zip(seen.xywh, seen.scores, strict=True)
        ]
    heights = np.array([person["area"] for person in truth if not person["iscrowd"]])
    counts = [int(((heights >= low) & (heights <= high)).sum()) for low, high in SIZES.values()]
    if found:
        whole = _evaluation(truth, found, len(pictures), COCO_IOUS, [_ANY])
        # Sizes only at 0.5: all overlaps for all sizes would take four times as long.
        by_size = _evaluation(truth, found, len(pictures), COCO_IOUS[:1], list(SIZES.values()))
        each = _percent(whole.eval["precision"].mean(axis=(1, 2, 3, 4)))  # (overlaps,)
        sized = _percent(by_size.eval["precision"].mean(axis=(0, 1, 2, 4)))  # (sizes,)
        ap50, ap = each[0], float(np.mean(each))
        recall, precision, overlap = _at_score(whole, score)
    else:
        ap50, *sized = (0.0 if count else float("nan") for count in (len(heights), *counts))
        ap, recall, precision, overlap = ap50, ap50, float("nan"), float("nan")
    return PictureScores(
        people=len(heights),
        people_small=counts[0],
        people_medium=counts[1],
        people_large=counts[2],
        ap50=ap50,
        ap=ap,
        ap50_small=sized[0],
        ap50_medium=sized[1],
        ap50_large=sized[2],
        recall=recall,
        precision=precision,
        overlap=overlap,
    )


def match_pictures(pictures: Sequence[tuple[People, Found]]) -> list[Matched]:
    """Match the detections in single pictures with their people, as COCO does."""
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image, (people, seen) in enumerate(pictures, 1):
        for box, ignored in zip(people.xywh, people.ignored, strict=True):
            truth.append(_person(len(truth) + 1, image, box, box[2:].prod(), ignored))
        found += [
            _detection(image, box, value) for box, value in zip(seen.xywh, seen.scores, strict=True)
        ]
    nothing = np.zeros((0, len(COCO_IOUS)), bool)
    matched = [Matched(np.zeros((0, 4)), np.zeros(0), nothing, nothing)] * len(pictures)
    if not found:
        return matched
    evaluation = _evaluation(truth, found, len(pictures), COCO_IOUS, [_ANY])
    boxes = {box["id"]: box["bbox"] for box in evaluation.cocoDt.dataset["annotations"]}
    for entry in filter(None, evaluation.evalImgs):
        matched[entry["image_id"] - 1] = Matched(
            np.array([boxes[i] for i in entry["dtIds"]], float).reshape(-1, 4),
            np.array(entry["dtScores"], float),
            entry["dtMatches"].T > 0,
            entry["dtIgnore"].T.astype(bool),
        )
    return matched


def _percent(precisions: Array) -> list[float]:
    """Percent of each; NaN for -1, pycocotools' value without ground truth."""
    return [100 * float(value) if value >= 0 else float("nan") for value in precisions]


def _person(number: int, image: int, xywh: Array, size: float, ignored: Any) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image,
        "category_id": PEDESTRIAN,
        "bbox": xywh.tolist(),
        "area": float(size),
        "iscrowd": int(ignored),
    }


def _detection(image: int, xywh: Array, score: Any) -> dict[str, Any]:
    return {
        "image_id": image,
        "category_id": PEDESTRIAN,
        "bbox": xywh.tolist(),
        "score": float(score),
    }


def _coco(
    truth: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], images: int
) -> tuple[float, float]:
    """AP and recall at 0.5, percent."""
    if not any(not box["iscrowd"] for box in truth):
        return float("nan"), float("nan")
    if not found:
        return 0.0, 0.0
    evaluation = _evaluation(truth, found, images, np.array([_MATCH_IOU]), [_ANY])
    return (
        100 * float(evaluation.eval["precision"].mean()),
        100 * float(evaluation.eval["recall"].mean()),
    )


def _evaluation(
    truth: Sequence[dict[str, Any]],
    found: Sequence[dict[str, Any]],
    images: int,
    overlaps: Array,
    sizes: Sequence[tuple[float, float]],
) -> Any:
    """A COCOeval that has done its work (it prints; what it says is dropped).

    `sizes` are bands of people's `area`; a detection is of `size` where it says so, else of its
    box's area.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(1, images + 1)],
            "annotations": [dict(box) for box in truth],
            "categories": [{"id": PEDESTRIAN, "name": "person"}],
        }
        coco.createIndex()
        results = coco.loadRes([dict(box) for box in found])
        for box in results.dataset["annotations"]:
            box["area"] = box.get("size", box["area"])
        evaluation = COCOeval(coco, results, "bbox")
        evaluation.params.iouThrs = overlaps
        evaluation.params.maxDets = [_MAX_DETECTIONS]
        evaluation.params.areaRng = [list(band) for band in sizes]
        evaluation.params.areaRngLbl = [str(band) for band in sizes]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _at_score(evaluation: Any, score: float) -> tuple[float, float, float]:
    """Recall, precision and overlap in percent, see `PictureScores`."""
    seen = [entry for entry in evaluation.evalImgs if entry is not None]
    people = sum(int((entry["gtIgnore"] == 0).sum()) for entry in seen)
    right = wrong = 0
    overlaps: list[float] = []
    for entry in seen:
        counted = (np.asarray(entry["dtScores"]) >= score) & (entry["dtIgnore"][0] == 0)
        matched = entry["dtMatches"][0] > 0
        right += int((counted & matched).sum())
        wrong += int((counted & ~matched).sum())
        for i in np.flatnonzero(counted & matched):
            box = evaluation.cocoDt.anns[entry["dtIds"][i]]["bbox"]
            person = evaluation.cocoGt.anns[int(entry["dtMatches"][0, i])]["bbox"]
            overlaps.append(float(iou_matrix(np.array([box]), np.array([person]))[0, 0]))
    precision = 100 * right / (right + wrong) if right + wrong else float("nan")
    overlap = 100 * float(np.median(overlaps)) if overlaps else float("nan")
    return (100 * right / people if people else float("nan")), precision, overlap
