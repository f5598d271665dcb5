"""Tracks of stretches as samples: features, and whether they are right."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np

from pipeline.benchmark.metrics import Array, TrackingScores, preprocess, tracking_scores
from pipeline.benchmark.trust.passes import TrackedStretch
from pipeline.benchmark.trust.right import judge
from pipeline.datasets.boxes import Boxes, as_written
from pipeline.degrade.conditions import CLEAN
from pipeline.trust.features import features
from pipeline.trust.sums import TrackSums


@dataclass(frozen=True, slots=True)
class StretchTracks:
    """The tracks of one stretch.

    Attributes:
        name: Of the stretch.
        sequence: Name of its sequence.
        degraded: Whether it is shown degraded.
        gt: Ground truth of its frames, evaluated, without what is on distractors.
        boxes: Of the tracks, without those on distractors.
        ids: (T,) of the tracks.
        features: (T, F) of them.
        counted, right: (T,) as of `judge`.
    """

    name: str
    sequence: str
    degraded: bool
    gt: Boxes
    boxes: Boxes
    ids: Array
    features: Array
    counted: Array
    right: Array


@dataclass(frozen=True, slots=True)
class Samples:
    """Tracks that are right or wrong.

    Attributes:
        features: (T, F).
        right: (T,) bool.
        degraded: (T,) bool.
        sequence: (T,) names.
    """

    features: Array
    right: Array
    degraded: Array
    sequence: Array

    def __len__(self) -> int:
        """Number of tracks."""
        return len(self.right)

    def __getitem__(self, chosen: Array) -> Samples:
        """Some of the tracks."""
        return Samples(
            self.features[chosen], self.right[chosen], self.degraded[chosen], self.sequence[chosen]
        )


def stretch_tracks(tracked: TrackedStretch) -> StretchTracks:
    """The tracks of a stretch with what the ground truth says of them."""
    stretch, tracks, frames = tracked.stretch, tracked.tracks, tracked.frames
    sequence, condition = stretch.sequence, stretch.condition
    sums = TrackSums((sequence.width, sequence.height), frames["frame_index"], frames["quality"])
    sums.add(tracks)
    xywh = np.stack([tracks[side] for side in "xywh"], axis=1)
    boxes = as_written(
        Boxes.of(tracks["frame_index"] + 1, tracks["track_id"], xywh, tracks["score"])
    )
    gt = sequence.gt
    gt = gt[(gt.frame > stretch.first) & (gt.frame <= stretch.end)]
    judged = judge(gt, boxes, sums.ids)
    people, kept = preprocess(gt, boxes)
    return StretchTracks(
        name=f"{sequence.name} {condition.name}",
        sequence=sequence.name,
        degraded=condition.kind != CLEAN,
        gt=people,
        boxes=kept,
        ids=sums.ids,
        features=features(sums),
        counted=judged.counted,
        right=judged.right,
    )


def samples(stretches: Iterable[StretchTracks]) -> Samples:
    """All tracks that are right or wrong, of at least one stretch."""
    parts = list(stretches)
    counts = [int(part.counted.sum()) for part in parts]
    return Samples(
        np.concatenate([part.features[part.counted] for part in parts]),
        np.concatenate([part.right[part.counted] for part in parts]),
        np.repeat([part.degraded for part in parts], counts),
        np.repeat([part.sequence for part in parts], counts),
    )


def scores_of_best(
    stretches: Items[StretchTracks], values: Items[Array], share: float
) -> TrackingScores:
    """Scores with the tracks of the greatest values alone.

    Args:
        stretches: At least one.
        values: (T,) for each stretch, of its tracks.
        share: Of all tracks that are kept.
    """
    every = np.concatenate(list(values))
    count = round(share * len(every))
    order = np.argsort(-every, kind="stable")
    kept = np.zeros(len(every), bool)
    kept[order[:count]] = True
    pairs, start = {}, 0
    for stretch in stretches:
        chosen = stretch.ids[kept[start : start + len(stretch.ids)]]
        start += len(stretch.ids)
        boxes = stretch.boxes
        pairs[stretch.name] = stretch.gt, boxes[np.isin(boxes.track_id, chosen)]
    return tracking_scores(pairs)[1]
