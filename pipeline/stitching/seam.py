"""One seam between two windows: which of their tracks go on across it."""

from __future__ import annotations

from collections.abc import Container, Set
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.stitching.appearance import appearances
from pipeline.stitching.gaps import GapRule, join_over_gaps
from pipeline.stitching.looks import Array
from pipeline.stitching.overlap import match_overlap
from pipeline.stitching.window import Window

# A track that is lost at a seam may be found again for as long as the tracker itself would look for
# it. So weaker evidence is needed than after a longer absence.
_AT_SEAM = GapRule(evidence=0.0, lead=0.1)


Outcome = Literal["matched", "conflict", "left_alone", "right_alone"]


class ChainBroken(ValueError):
    """Two windows do not share the frames that they should; the message says where and why."""


@dataclass(frozen=True, slots=True)
class SeamTrack:
    """A track at a seam, or two that are compared there; a row of the table `seams`.

    Attributes:
        outcome: See `schema.SEAMS`.
        left, right: Ids in the two windows; None where there is none.
        overlap: In the shared frames; None for tracks that share none.
        similarity: Of appearance; None if one of the two has no view.
        gap_s: Seconds between the two.
    """

    outcome: Outcome
    left: int | None = None
    right: int | None = None
    overlap: float | None = None
    similarity: float | None = None
    gap_s: float = 0.0


def frame_offset(left: Window, right: Window) -> int:
    """What is added to frame indices of the right window to make them those of the left one.

    Raises:
        ChainBroken: They do not share the frames before the seam.
    """
    a, b = left.tail, right.head
    if not len(a.time_s) or not len(b.time_s):
        raise ChainBroken(f"no frame before {right.start_s:.3f} s is in both windows")
    if not np.array_equal(a.time_s, b.time_s):
        raise ChainBroken(
            f"the frames before {right.start_s:.3f} s are not the same in both windows: "
            f"{len(a.time_s)} from {a.time_s[0]:.3f} s and {len(b.time_s)} from {b.time_s[0]:.3f} s"
        )
    offsets = np.unique(a.frame_index - b.frame_index)
    if len(offsets) > 1:
        raise ChainBroken(f"frames before {right.start_s:.3f} s are missing in one of two windows")
    return int(offsets[0])


def join_windows(left: Window, right: Window, max_gap_s: float) -> list[SeamTrack]:
    """Which tracks of two windows are one person, and which go on alone.

    A track of the right window without finished rows ends before the seam, so it follows nobody.

    Args:
        left, right: Successive windows, which share frames.
        max_gap_s: How long the tracker looks for a person it does not see.
    """
    ended, begun = left.looks.records(), right.looks.records()
    spread = left.looks.spread() + right.looks.spread()
    looks = appearances(np.concatenate([ended, begun]), spread)
    ended_looks, begun_looks = looks[: len(ended)], looks[len(ended) :]

    lefts, rights = np.unique(left.tail.track_id), np.unique(right.head.track_id)
    at_end = np.searchsorted(ended["track_id"], lefts)  # records are sorted by id
    at_begin = np.searchsorted(begun["track_id"], rights)
    alike = ended_looks[at_end] @ begun_looks[at_begin].T
    known = (ended["views"][at_end] > 0)[:, None] & (begun["views"][at_begin] > 0)
    match = match_overlap(left.tail, right.head, alike)

    def compared(outcome: Outcome, i: int, j: int) -> SeamTrack:
        similarity = float(alike[i, j]) if known[i, j] else None
        return SeamTrack(
            outcome, int(lefts[i]), int(rights[j]), float(match.overlap[i, j]), similarity
        )

    rows = [compared("matched", i, j) for i, j in match.pairs]
    rows += [compared("conflict", i, j) for i, j in match.conflicts]
    rows = [row for row in rows if row.left in left.finished and row.right in right.finished]

    matched = [row for row in rows if row.outcome == "matched"]
    free_ended = _without(ended, {row.left for row in matched}, left.finished)
    free_begun = _without(begun, {row.right for row in matched}, right.finished)
    joins = join_over_gaps(
        ended[free_ended],
        begun[free_begun],
        ended_looks[free_ended],
        begun_looks[free_begun],
        max_gap_s,
        _AT_SEAM,
    )
    for join in joins:
        e, b = free_ended[join.ended], free_begun[join.begun]
        clear = ended["views"][e] > 0 and begun["views"][b] > 0
        rows.append(
            SeamTrack(
                "matched",
                int(ended["track_id"][e]),
                int(begun["track_id"][b]),
                similarity=join.similarity if clear else None,
                gap_s=join.gap_s,
            )
        )
    going_on = [
        {getattr(r, side) for r in rows if r.outcome == "matched"} for side in ("left", "right")
    ]
    rows += [SeamTrack("left_alone", left=i) for i in lefts.tolist() if i not in going_on[0]]
    rows += [
        SeamTrack("right_alone", right=i)
        for i in rights.tolist()
        if i in right.finished and i not in going_on[1]
    ]
    return rows


def _without(records: Array, matched: Set[int | None], finished: Container[int]) -> Array:
    """Places of the records of finished tracks that are not matched."""
    ids = records["track_id"].tolist()
    return np.array([n for n, i in enumerate(ids) if i in finished and i not in matched], np.int64)
