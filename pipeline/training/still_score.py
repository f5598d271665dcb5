"""AP50 on the stills of split `val`, on the machine that trains.

It does not need pycocotools, which that machine may not have. A test compares both figures.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from model.track.tracker import Tracker
from pipeline.datasets.picture_boxes import Found, People
from pipeline.datasets.shards import PictureError, ShardError, Shards, require_val
from pipeline.tracking.student_detections import Prepared, encode, prepare, student_detections

_BATCH = 64
_CPU_BATCH = 16  # larger batches are no faster on a CPU, smaller ones are slower
_THREADS = 16
_MATCH_IOU = 0.5
_RECALLS = np.linspace(0, 1, 101)

Array = np.ndarray[Any, Any]


def score_stills(
    tracker: Tracker, shards: Shards, device: torch.device, limit: int = 0
) -> dict[str, float]:
    """Score a student on the stills of split `val`, on its own canvas.

    Args:
        tracker: on `device`; its train or eval mode is restored.
        shards: with stills of split `val`.
        device: device of the tracker.
        limit: greatest number of stills, evenly over all of them; 0 for all.

    Returns:
        `ap50`: percent, pooled over all pictures; NaN if nobody is in them.
        `pictures`: number of pictures that were scored.
        `unreadable`: number of pictures that could not be read; stderr names them.

    Raises:
        ShardError: the shards have no stills of split `val`, or none of them can be read.
    """
    stills = require_val(shards)
    if 0 < limit < len(stills):
        stills = [stills[i * len(stills) // limit] for i in range(limit)]
    was_training = tracker.training
    tracker.eval()
    pairs: list[tuple[People, Found]] = []
    try:
        for batch in _batches(tracker, shards, stills, device):
            pictures = [picture for picture, _ in batch]
            found = student_detections(encode(tracker, pictures, device), pictures)
            pairs += zip((people for _, people in batch), found, strict=True)
    finally:
        tracker.train(was_training)
    if not pairs:
        raise ShardError(f"{shards.folder}: no still of split val can be read; pack them again")
    unreadable = len(stills) - len(pairs)
    return {"ap50": ap50(pairs), "pictures": len(pairs), "unreadable": unreadable}


def _batches(
    tracker: Tracker, shards: Shards, stills: Sequence[int], device: torch.device
) -> Iterator[list[tuple[Prepared, People]]]:
    """Yield batches of pictures with their people; threads decode one batch ahead."""
    size = _BATCH if device.type == "cuda" else _CPU_BATCH

    def load(still: int) -> tuple[Prepared, People] | None:
        frame = shards.sequences[still].frames[0]
        try:
            pixels = shards.picture(still, 0)
        except PictureError as error:
            print(f"left out: {error}", file=sys.stderr)
            return None
        people = People(np.array(frame.boxes, float).reshape(-1, 4), np.array(frame.ignore, bool))
        return prepare(pixels, tracker.config), people

    threads = min(_THREADS, os.cpu_count() or 1) if device.type == "cuda" else 1
    with ThreadPoolExecutor(threads, "stills") as pool:
        waiting = [pool.submit(load, still) for still in stills[:size]]
        for start in range(0, len(stills), size):
            ahead = [pool.submit(load, i) for i in stills[start + size : start + 2 * size]]
            if loaded := [pair for future in waiting if (pair := future.result())]:
                yield loaded
            waiting = ahead


def ap50(pictures: Sequence[tuple[People, Found]]) -> float:
    """COCO's average precision at IoU 0.5, percent, pooled; NaN without people."""
    people = sum(int((~truth.ignored).sum()) for truth, _ in pictures)
    if not people:
        return float("nan")
    parts = [_matched(truth, found) for truth, found in pictures]
    scores, correct = (np.concatenate(column) for column in zip(*parts, strict=True))
    correct = correct[np.argsort(-scores, kind="stable")]
    true = np.cumsum(correct)
    precision = true / np.arange(1, len(correct) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(true / people, _RECALLS)  # the first detection that reaches each recall
    return 100 * float(np.append(precision, 0.0)[at].mean())


def _matched(truth: People, found: Found) -> tuple[Array, Array]:
    """Scores of the detections that count, best first, and whether each is correct.

    Matching is that of COCO. Detections choose in the order of their scores. Each takes the person
    with the greatest IoU among those not taken yet. A detection without a person does not count if
    half of its area lies in an ignored box.
    """
    order = np.argsort(-found.scores, kind="stable")
    boxes = found.xywh[order]
    people, ignored = truth.xywh[~truth.ignored], truth.xywh[truth.ignored]
    shared = _intersection(boxes, people)
    sizes = boxes[:, 2:].prod(1)
    overlap = shared / (sizes[:, None] + people[:, 2:].prod(1) - shared)
    inside = (_intersection(boxes, ignored) / sizes[:, None]).max(1, initial=0) >= _MATCH_IOU
    free = np.ones(len(people), bool)
    correct = np.zeros(len(boxes), bool)
    for i in np.flatnonzero((overlap >= _MATCH_IOU).any(1)):
        choice = np.where(free, overlap[i], -1)
        best = int(choice.argmax())
        if choice[best] >= _MATCH_IOU:
            correct[i], free[best] = True, False
    counted = correct | ~inside
    return found.scores[order][counted], correct[counted]


def _intersection(a: Array, b: Array) -> Array:
    """Intersection areas (M, N) of boxes a (M, 4) and b (N, 4), both x, y, w, h."""
    a, b = a[:, None], b[None]
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    return np.clip(high - low, 0, None).prod(-1)
