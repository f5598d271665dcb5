"""Tracks that end and tracks that begin later: which are one person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.stitching.looks import Array, centres

# What places and sizes count beside the similarity of two tracks. `vsdmot measure what=evidence`
# fits the two costs by logistic regression to people who come back.
_STEADY_S = 1.0  # for how long a velocity is taken to last
_PLACE, _PLACE_PER_S = 0.3, 0.5  # heights that a person is off the expected place, and a second
_SIZE, _SIZE_PER_S = 0.1, 0.04  # the same of the logarithm of the ratio of heights
_PLACE_COST, _SIZE_COST = 0.12, 0.07
FARTHEST = 6.0  # multiples of the expected distance; nobody comes back from beyond
_LONGEST_S = 10.0  # after this the size is not known less well


@dataclass(frozen=True, slots=True)
class GapRule:
    """When a track that begins is the person of one that has ended.

    Attributes:
        evidence: Least similarity, less the cost of place and size.
        lead: By how much it has to exceed that of every other candidate of both.
    """

    evidence: float
    lead: float


@dataclass(frozen=True, slots=True)
class GapJoin:
    """Two tracks that are one person.

    Attributes:
        ended, begun: Their rows in the records.
        similarity: Of their appearance.
        gap_s: Seconds between them.
    """

    ended: int
    begun: int
    similarity: float
    gap_s: float


def join_over_gaps(
    ended: Array,
    begun: Array,
    ended_looks: Array,
    begun_looks: Array,
    max_gap_s: float,
    rule: GapRule,
) -> list[GapJoin]:
    """Pairs of tracks that are each other's only good candidate, in the order of `begun`.

    Each track that ended, and each that begins, is in one pair at most. Time and memory grow with
    the number of tracks that end within a gap, not with the square of all.

    Args:
        ended, begun: Records of tracks, see `looks.look_fields`; both may be the same.
        ended_looks, begun_looks: Their appearances.
        max_gap_s: Greatest time between the end of one and the beginning of the other.
        rule: When they are one person.
    """
    order = np.argsort(ended["last_s"], kind="stable")
    last_s = ended["last_s"][order]
    tops: list[tuple[float, GapJoin]] = []
    # Of each track the best evidence, and the next best, which the best has to exceed.
    best = np.full(len(ended), -np.inf)
    ended_next = np.full(len(ended), -np.inf)
    begun_next = np.full(len(begun), -np.inf)
    for b, first_s in enumerate(begun["first_s"].tolist()):
        near = order[
            np.searchsorted(last_s, first_s - max_gap_s) : np.searchsorted(last_s, first_s)
        ]
        cost = _cost(ended[near], begun[b])
        near, cost = near[np.isfinite(cost)], cost[np.isfinite(cost)]
        if not len(near):
            continue
        similarity = ended_looks[near] @ begun_looks[b]
        evidence = similarity - cost
        ended_next[near] = np.maximum(ended_next[near], np.minimum(best[near], evidence))
        best[near] = np.maximum(best[near], evidence)
        top = int(evidence.argmax())
        begun_next[b] = np.delete(evidence, top).max(initial=-np.inf)
        gap_s = first_s - float(ended["last_s"][near[top]])
        join = GapJoin(int(near[top]), b, float(similarity[top]), gap_s)
        tops.append((float(evidence[top]), join))
    return [
        join
        for evidence, join in tops
        if evidence >= max(rule.evidence, best[join.ended])
        and evidence - max(ended_next[join.ended], begun_next[join.begun]) >= rule.lead
    ]


def _cost(ended: Array, begun: Array) -> Array:
    """What place and size say against N tracks that ended being one that begins: (N,), or inf."""
    place, size = misfits(ended, begun)
    return np.where(place <= FARTHEST, _PLACE_COST * place + _SIZE_COST * size, np.inf)


def misfits(ended: Array, begun: Array) -> tuple[Array, Array]:
    """How far place and size are off if N tracks that ended are one that begins: two of (N,).

    1 is what is expected of one person after the time between them.
    """
    gap_s = begun["first_s"] - ended["last_s"]
    steady_s = np.minimum(gap_s, _STEADY_S)[:, None]
    way = steady_s * (ended["last_velocity"] + begun["first_velocity"]) / 2
    miss = centres(begun["first_box"]) - centres(ended["last_box"]) - way
    heights, height = ended["last_box"][:, 3], begun["first_box"][3]
    distance = np.linalg.norm(miss, axis=1) / ((heights + height) / 2)
    place = distance / (_PLACE + _PLACE_PER_S * gap_s)
    size = abs(np.log(heights / height)) / (_SIZE + _SIZE_PER_S * np.minimum(gap_s, _LONGEST_S))
    return place, size
