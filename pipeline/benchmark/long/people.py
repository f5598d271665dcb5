"""Who is who: the tracks that follow the people of the ground truth."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from scipy.optimize import linear_sum_assignment

from pipeline.benchmark.metrics import iou_matrix
from pipeline.datasets.boxes import Boxes

_MATCH_IOU = 0.5


def followed(truth: Boxes, tracks: Boxes, frames: Iterable[int]) -> Iterator[dict[int, int]]:
    """The track that follows each person, for each of some frames, which count from 1."""
    for frame in frames:
        people, found = truth.at(frame), tracks.at(frame)
        overlap = iou_matrix(people.xywh, found.xywh)
        rows, columns = linear_sum_assignment(overlap, maximize=True)
        yield {
            int(people.track_id[row]): int(found.track_id[column])
            for row, column in zip(rows, columns, strict=True)
            if overlap[row, column] >= _MATCH_IOU
        }


def first_followed(truth: Boxes, tracks: Boxes, frames: Iterable[int]) -> dict[int, int]:
    """The track that follows each person in the first of some frames in which one does."""
    first: dict[int, int] = {}
    for pairs in followed(truth, tracks, frames):
        first = pairs | first
    return first


def owners(truth: Boxes, tracks: Boxes) -> dict[int, int]:
    """The person that each track follows in most of its boxes; tracks without one are left out."""
    counts: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for pairs in followed(truth, tracks, np.unique(truth.frame).tolist()):
        for person, track in pairs.items():
            counts[track][person] += 1
    ids, lengths = np.unique(tracks.track_id, return_counts=True)
    length = dict(zip(ids.tolist(), lengths.tolist(), strict=True))
    best = {track: people.most_common(1)[0] for track, people in counts.items()}
    return {track: p for track, (p, count) in best.items() if 2 * count > length[track]}


def visits(gt: Boxes, most_absent: int) -> Iterator[tuple[int, int, int]]:
    """(person, first frame, last frame) of each stay, in the order of person and time.

    Args:
        gt: Ground truth.
        most_absent: Frames without a box after which a person has left.
    """
    for person in np.unique(gt.track_id).tolist():
        frames = gt.frame[gt.track_id == person]
        breaks = np.flatnonzero(np.diff(frames) > most_absent + 1) + 1
        for stay in np.split(frames, breaks):
            yield person, int(stay[0]), int(stay[-1])


def by_visit(gt: Boxes, most_absent: int) -> Boxes:
    """Ground truth with an id of its own for each stay, see `visits`.

    A tracker that finds nobody again can do no better.
    """
    ids = gt.track_id.copy()
    for number, (person, first, last) in enumerate(visits(gt, most_absent), 1):
        ids[(gt.track_id == person) & (gt.frame >= first) & (gt.frame <= last)] = number
    return Boxes.of(gt.frame, ids, gt.xywh)
