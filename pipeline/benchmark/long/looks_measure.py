"""Whether the student's memory of a person, and colours, tell people apart after some seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from pipeline.benchmark.long.encode_once import Pass, track_together
from pipeline.benchmark.long.people import owners
from pipeline.benchmark.long.split_measure import Row, boxes_of
from pipeline.datasets.mot import Sequence as MotSequence
from pipeline.inference.runtime import Runtime
from pipeline.stitching.appearance import appearances, separate_appearances
from pipeline.stitching.colours import COLOURS
from pipeline.stitching.looks import Glance, Looks, look_fields
from pipeline.storage.files import list_videos
from pipeline.tracking.track_video import TrackSettings
from pipeline.video.probe import probe

GAPS_S = (1, 5, 30)
KINDS = ("plain", "memory", "colours", "both")
"""What is compared: the memory as it is, the memory whitened, colours whitened, and the two."""
_FALSE = 0.01  # share of pairs of different people that are taken for one person
Array = np.ndarray[Any, Any]


class Views(Looks):
    """Looks that keep each view, with its second and its track."""

    def __init__(self, dim: int) -> None:
        """See `Looks`."""
        super().__init__(dim)
        none = np.zeros(0, np.int64)
        self._kept: list[tuple[Array, Array, Array]] = [(none, none, np.zeros((0, dim + COLOURS)))]

    def add(self, tracks: Mapping[str, Array], glance: Glance | None) -> None:
        """See `Looks.add`."""
        super().add(tracks, glance)
        if glance is not None and len(tracks["time_s"]):
            ids, views = self.views(glance)
            self._kept.append((np.full(len(ids), int(tracks["time_s"][-1])), ids, views))

    def kept(self) -> tuple[Array, Array, Array]:
        """Seconds (N,), ids of tracks (N,) and views (N, width)."""
        seconds, ids, views = (np.concatenate(part) for part in zip(*self._kept, strict=True))
        return seconds, ids, views


@dataclass(frozen=True, slots=True)
class Compared:
    """Similarities of pairs of one person, and of different people, some seconds apart."""

    same: Array
    other: Array

    @property
    def area(self) -> float:
        """Area under the curve: how often a pair of one person is more alike than another pair."""
        if not len(self.same) or not len(self.other):
            return float("nan")
        ranks = rankdata(np.concatenate([self.same, self.other]))[: len(self.same)]
        least = len(self.same) * (len(self.same) + 1) / 2
        return float((ranks.sum() - least) / len(self.same) / len(self.other))

    @property
    def found(self) -> float:
        """Share of the pairs of one person that is found with one false pair in a hundred."""
        if not len(self.same) or not len(self.other):
            return float("nan")
        return float((self.same > np.quantile(self.other, 1 - _FALSE)).mean())


def look_rows(
    model: Runtime, sequences: Sequence[MotSequence], settings: TrackSettings
) -> list[Row]:
    """How well looks tell people apart, by gap: the memory as it is and whitened, colours, both.

    Args:
        model: The student, opened with the settings on a CPU.
        sequences: Each is tracked once.
        settings: Of the tracking.

    Raises:
        ProbeError, DecodeError, StorageError: A video cannot be read.
    """
    views = [_seconds(model, sequence, settings) for sequence in sequences]
    rows = []
    for gap_s in GAPS_S:
        compared = _compared(views, gap_s)
        one = next(iter(compared.values()))
        row: Row = {"gap_s": gap_s, "pairs_same": len(one.same), "pairs_other": len(one.other)}
        for kind, pairs in compared.items():
            row |= {f"area_{kind}": pairs.area, f"found_{kind}": pairs.found}
        rows.append(row)
    return rows


@dataclass(frozen=True, slots=True)
class _Seconds:
    """Looks of people in single seconds of a video.

    Attributes:
        second, person: (N,).
        records: (N,) what is known of the person in this second.
        spread: Of the tracks of others, by person: what is known when the person comes back.
    """

    second: Array
    person: Array
    records: Array
    spread: dict[int, Array]


def _seconds(model: Runtime, sequence: MotSequence, settings: TrackSettings) -> _Seconds:
    info = probe(next(list_videos(str(sequence.video))))
    looks = Views(model.config.dim)
    whole = Pass(None, None, looks)
    track_together(model, info, settings, [whole])
    owner = owners(sequence.gt, boxes_of(whole.tracks()))
    seconds, ids, views = looks.kept()
    people = np.array([owner.get(i, -1) for i in ids.tolist()], np.int64)
    keys, inverse = np.unique(
        np.stack([seconds, people])[:, people >= 0], axis=1, return_inverse=True
    )
    records = np.zeros(keys.shape[1], look_fields(looks.dim))
    np.add.at(records["views"], inverse, 1)
    np.add.at(records["view_sum"], inverse, views[people >= 0])
    spread = {p: _spread(ids[people != p], views[people != p]) for p in np.unique(keys[1]).tolist()}
    return _Seconds(keys[0], keys[1], records, spread)


def _spread(ids: Array, views: Array) -> Array:
    """Scatter of views around the means of their tracks."""
    _, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), views.shape[1]))
    np.add.at(sums, inverse, views)
    apart = views - (sums / counts[:, None])[inverse]
    return apart.T @ apart


def _compared(videos: Sequence[_Seconds], gap_s: int) -> dict[str, Compared]:
    same: dict[str, list[Array]] = {kind: [np.zeros(0)] for kind in KINDS}
    other: dict[str, list[Array]] = {kind: [np.zeros(0)] for kind in KINDS}
    for video in videos:
        width = video.records["view_sum"].shape[1]
        plain, _ = separate_appearances(video.records, np.zeros((width, width)))
        for person, spread in video.spread.items():
            memory, colour = separate_appearances(video.records, spread)
            vectors = (plain, memory, colour, appearances(video.records, spread))
            for row in np.flatnonzero(video.person == person):
                later = video.second == video.second[row] + gap_s
                own = video.person[later] == person
                for kind, looks in zip(KINDS, vectors, strict=True):
                    alike = looks[later] @ looks[row]
                    same[kind].append(alike[own])
                    other[kind].append(alike[~own])
    return {
        kind: Compared(np.concatenate(same[kind]), np.concatenate(other[kind])) for kind in KINDS
    }
