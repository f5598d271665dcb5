"""Windows of one video become one: which tracks are the same person, and what their ids are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pipeline.stitching.looks import Looks
from pipeline.stitching.rejoin import rejoin
from pipeline.stitching.seam import ChainBroken, SeamTrack, frame_offset, join_windows
from pipeline.stitching.window import Window

__all__ = ["ChainBroken", "Stitched", "Window", "stitch"]


@dataclass(frozen=True, slots=True)
class Stitched:
    """How windows become one video.

    Attributes:
        ids: For each window the id in the finished tables of each of its ids that has finished
            rows. They count from 1 by the first finished row; a track that was rejoined has the id
            of an earlier one instead.
        frame_offsets: For each window what is added to its frame indices in the finished tables.
        seams: Rows of the table `seams`, without video_id.
        counters: seams, seam_matches, seam_conflicts, seam_unmatched, rejoined, as in `videos`.
        rejoined: Ids in the finished tables that later tracks got, see `rejoin`.
    """

    ids: list[dict[int, int]]
    frame_offsets: list[int]
    seams: list[dict[str, Any]]
    counters: dict[str, int]
    rejoined: frozenset[int]


def stitch(
    windows: Sequence[Window], *, dim: int, max_gap_s: float, rejoin_gap_s: float
) -> Stitched:
    """Join the windows of one video. The result depends on the windows alone.

    Args:
        windows: All of them, at least one, in the order of their times.
        dim: Width of the student's queries.
        max_gap_s: How long the tracker looks for a person it does not see.
        rejoin_gap_s: `reid.max_gap_s`.

    Raises:
        ChainBroken: Two windows do not share the frames that they should.
    """
    offsets = [0]
    for left, right in pairwise(windows):
        offsets.append(offsets[-1] + frame_offset(left, right))
    seams = [join_windows(left, right, max_gap_s) for left, right in pairwise(windows)]
    ids = _numbered(windows, seams)
    looks = Looks.merged(dim, [(w.looks, names) for w, names in zip(windows, ids, strict=True)])
    earlier = rejoin(looks, rejoin_gap_s)
    ids = [{i: earlier.get(number, number) for i, number in names.items()} for names in ids]
    outcomes = Counter(row.outcome for seam in seams for row in seam)
    return Stitched(
        ids,
        offsets,
        [
            row
            for number, seam in enumerate(seams)
            for row in _rows(number, seam, windows[number + 1], ids[number], ids[number + 1])
        ],
        {
            "seams": len(seams),
            "seam_matches": outcomes["matched"],
            "seam_conflicts": outcomes["conflict"],
            "seam_unmatched": outcomes["left_alone"] + outcomes["right_alone"],
            "rejoined": len(earlier),
        },
        frozenset(earlier.values()),
    )


def _numbered(
    windows: Sequence[Window], seams: Sequence[Sequence[SeamTrack]]
) -> list[dict[int, int]]:
    """For each window the number of the person of each of its ids, in the order of appearance."""
    # The first track of each person, by (time of its first finished row, window, id).
    people: list[tuple[float, int, int]] = []
    person: list[dict[int, int]] = []
    for number, window in enumerate(windows):
        seam = seams[number - 1] if number else []
        followed = {row.right: row.left for row in seam if row.outcome == "matched"}
        names: dict[int, int] = {}
        for i, time_s in window.finished.items():
            before = followed.get(i)
            if before is None:
                names[i] = len(people)
                people.append((time_s, number, i))
            else:
                names[i] = person[-1][before]
        person.append(names)
    order = sorted(range(len(people)), key=people.__getitem__)
    numbers = {p: number for number, p in enumerate(order, 1)}
    return [{i: numbers[p] for i, p in names.items()} for names in person]


def _rows(
    number: int,
    seam: Sequence[SeamTrack],
    right: Window,
    left_ids: Mapping[int, int],
    right_ids: Mapping[int, int],
) -> list[dict[str, Any]]:
    """Rows of the table `seams`, with finished ids."""
    return [
        {
            "seam": number,
            "time_s": right.start_s,
            "frames_shared": len(right.head.time_s),
            "outcome": row.outcome,
            "left_track_id": None if row.left is None else left_ids.get(row.left),
            "right_track_id": None if row.right is None else right_ids.get(row.right),
            "overlap": row.overlap,
            "similarity": row.similarity,
            "gap_s": row.gap_s,
        }
        for row in seam
    ]
