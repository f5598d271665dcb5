"""Average precision of weighed pictures, for bootstraps: detections are matched once.

Matching is pycocotools'. With weights of 1 the average precision is pycocotools' own; a picture of
weight k counts as k copies of it.
Shapes: P pictures, D detections, T overlaps, R sets of weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from pipeline.benchmark.average_precision import COCO_IOUS, match_pictures
from pipeline.datasets.picture_boxes import Found, People

Array = np.ndarray[Any, Any]

_RECALLS = np.linspace(0, 1, 101)
_AT_ONCE = 250  # sets of weights, which bounds memory


@dataclass(frozen=True, slots=True)
class Matches:
    """Detections in pictures, matched with the people in them at each overlap of `COCO_IOUS`.

    Attributes:
        people: (P,) people to be found in each picture.
        picture: (D,) index of each detection's picture, ascending.
        scores: (D,), descending within a picture.
        right: (D, T) bool, whether a detection has found a person.
        ignored: (D, T) bool, whether it counts neither for nor against.
    """

    people: Array
    picture: Array
    scores: Array
    right: Array
    ignored: Array

    def of(self, pictures: Sequence[int]) -> Matches:
        """Take some pictures, given by their indices, each once; they get indices from 0."""
        place = np.full(len(self.people), -1)
        place[np.asarray(pictures, int)] = np.arange(len(pictures))
        kept = np.flatnonzero(place[self.picture] >= 0)
        kept = kept[np.argsort(place[self.picture[kept]], kind="stable")]
        return Matches(
            self.people[np.asarray(pictures, int)],
            place[self.picture[kept]],
            self.scores[kept],
            self.right[kept],
            self.ignored[kept],
        )


def match(pictures: Sequence[tuple[People, Found]]) -> Matches:
    """Match the detections of pictures with their people."""
    parts = match_pictures(pictures)
    counts = [len(part.scores) for part in parts]
    return Matches(
        np.array([int((~people.ignored).sum()) for people, _ in pictures], int),
        np.repeat(np.arange(len(parts)), counts),
        np.concatenate([np.zeros(0), *(part.scores for part in parts)]),
        np.concatenate([np.zeros((0, len(COCO_IOUS)), bool), *(part.right for part in parts)]),
        np.concatenate([np.zeros((0, len(COCO_IOUS)), bool), *(part.ignored for part in parts)]),
    )


def average_precision(matches: Matches, weights: Array, overlap: int = 0) -> Array:
    """COCO's average precision in percent for each set of weights, (R,); NaN without people.

    Args:
        matches: of P pictures.
        weights: (R, P), how often each picture counts, ≥ 0.
        overlap: index into `COCO_IOUS`; 0 is an IoU of 0.5.
    """
    counted = np.flatnonzero(~matches.ignored[:, overlap])
    order = counted[np.argsort(-matches.scores[counted], kind="stable")]
    picture, right = matches.picture[order], matches.right[order, overlap]
    # Precision is greatest at right detections, so wrong ones are only counted between them.
    before = np.cumsum(right)
    found = int(before[-1]) if len(before) else 0
    wrong = ~right & (before < found)
    shape = (found, len(matches.people))
    between = csr_array((np.ones(int(wrong.sum())), (before[wrong], picture[wrong])), shape=shape)
    parts = [
        _precision(matches.people, picture[right], between, weights[i : i + _AT_ONCE])
        for i in range(0, len(weights), _AT_ONCE)
    ]
    return np.concatenate([np.zeros(0), *parts])


def _precision(people: Array, of_right: Array, between: csr_array, weights: Array) -> Array:
    """Average precision in percent, (R,).

    Args:
        people: (P,).
        of_right: picture of each right detection, best first.
        between: (right detections, P), wrong detections of each picture since the last right one.
        weights: (R, P).
    """
    weights = weights.astype(float)
    total = weights @ people
    true = np.cumsum(weights[:, of_right], axis=1)
    false = np.cumsum((between @ weights.T).T, axis=1)
    precision = true / (true + false + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    precision = np.append(precision, np.zeros((len(weights), 1)), axis=1)
    result = np.full(len(weights), np.nan)
    for i in np.flatnonzero(total):
        at = np.searchsorted(true[i] / total[i], _RECALLS)
        result[i] = 100 * precision[i, at].mean()
    return result
