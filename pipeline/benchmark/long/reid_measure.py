"""People who leave and come back: who keeps the id, and who is taken for somebody else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from pipeline.benchmark.long.encode_once import Pass, track_together
from pipeline.benchmark.long.people import first_followed, owners, visits
from pipeline.benchmark.long.recording import FPS, Recording
from pipeline.benchmark.long.split_measure import Row, boxes_of
from pipeline.benchmark.metrics import tracking_scores
from pipeline.datasets.boxes import Boxes
from pipeline.inference.runtime import Runtime
from pipeline.stitching.looks import Looks
from pipeline.stitching.rejoin import rejoin
from pipeline.storage.files import list_videos
from pipeline.tracking.track_video import TrackSettings
from pipeline.video.probe import probe

_SOON = 2 * FPS  # frames before an absence and after a return in which a track has to be there


@dataclass(frozen=True, slots=True)
class Tracked:
    """One pass over a recording in which people leave and come back.

    Attributes:
        name: Of the recording.
        truth: Its ground truth.
        tracks: Boxes of the tracks.
        looks: Of the tracks.
        back: The tracks of each person who comes back, see `returns`.
    """

    name: str
    truth: Boxes
    tracks: Boxes
    looks: Looks
    back: list[tuple[int, int]]


def tracked(model: Runtime, recording: Recording, name: str, settings: TrackSettings) -> Tracked:
    """Track a recording.

    Still frames are encoded too. They are not steps of the tracker, so that a person would not be
    unseen for the time in which a recording is black.

    Args:
        model: The student, opened with the settings on a CPU.
        recording: The recording.
        name: Of the recording.
        settings: Of the tracking.

    Raises:
        ProbeError, DecodeError, StorageError: The recording cannot be read.
    """
    info = probe(next(list_videos(str(recording.path))))
    whole = Pass(None, None, Looks(model.config.dim))
    track_together(model, info, replace(settings, skip_still=False), [whole])
    tracks = boxes_of(whole.tracks())
    back = returns(recording.gt, tracks, model.config.miss_tolerance)
    return Tracked(name, recording.gt, tracks, whole.looks, back)


def reid_row(passes: Sequence[Tracked], max_gap_s: float) -> Row:
    """Who keeps the id, and scores over all recordings, with one value of `reid.max_gap_s`."""
    counts: Counter[str] = Counter()
    renamed = {}
    for each in passes:
        earlier = rejoin(each.looks, max_gap_s)
        people = owners(each.truth, each.tracks)
        ids = np.array([earlier.get(i, i) for i in each.tracks.track_id.tolist()], np.int64)
        renamed[each.name] = each.truth, Boxes.of(each.tracks.frame, ids, each.tracks.xywh)
        counts["returns"] += len(each.back)
        counts["kept"] += sum(earlier.get(a, a) == earlier.get(b, b) for a, b in each.back)
        counts["joins"] += len(earlier)
        known = [(people[a], people[b]) for a, b in earlier.items() if {a, b} <= people.keys()]
        counts["joins_wrong"] += sum(a != b for a, b in known)
        counts["joins_of_nobody"] += len(earlier) - len(known)
    _, scores = tracking_scores(renamed)
    names = ("returns", "kept", "joins", "joins_wrong", "joins_of_nobody")
    return {
        "max_gap_s": max_gap_s,
        "recordings": len(passes),
        **{name: counts[name] for name in names},
        "idf1": scores.idf1,
        "hota": scores.hota,
        "id_switches": scores.id_switches,
    }


def returns(truth: Boxes, tracks: Boxes, most_absent: int) -> list[tuple[int, int]]:
    """The tracks of each person who comes back, before the absence and after it.

    Absences without a track on one side are left out: finding people again cannot help them.

    Args:
        truth, tracks: Frames from 1.
        most_absent: Frames without a box after which a person has left.
    """
    back = []
    for (person, _, last), (same, first, _) in pairwise(visits(truth, most_absent)):
        if person != same:
            continue
        before = first_followed(truth, tracks, range(last, max(0, last - _SOON), -1))
        after = first_followed(truth, tracks, range(first, first + _SOON))
        if person in before and person in after:
            back.append((before[person], after[person]))
    return back
