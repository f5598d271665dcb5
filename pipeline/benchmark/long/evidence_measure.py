"""What tells whether a track that begins is a person who left, and how much each term says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from pipeline.benchmark.long.looks_measure import Array, Compared
from pipeline.benchmark.long.people import owners
from pipeline.benchmark.long.reid_measure import Tracked
from pipeline.benchmark.long.split_measure import Row
from pipeline.datasets.mot import MotError
from pipeline.stitching.appearance import appearances, separate_appearances
from pipeline.stitching.gaps import FARTHEST, GapRule, join_over_gaps, misfits

TERMS = ("memory", "colours", "place", "size")
"""What is known of a pair: two similarities, and how far place and size are off, negated."""
RULES = tuple(
    GapRule(evidence, lead) for evidence in (0.1, 0.2, 0.3, 0.4, 0.5) for lead in (0.1, 0.2, 0.3)
)
_RIDGE = 1e-3


def evidence_rows(passes: Sequence[Tracked], max_gap_s: float) -> list[Row]:
    """How well each term tells people apart, alone, and its weight in a logistic regression.

    Weights are given as shares of those of the two similarities. The last row is of all together.

    Args:
        passes: Recordings in which people come back.
        max_gap_s: Greatest time between two tracks of a pair.

    Raises:
        MotError: All pairs are of one person, or none is.
    """
    parts = [pairs_of(each, max_gap_s) for each in passes]
    terms = np.concatenate([part[0] for part in parts])
    same = np.concatenate([part[1] for part in parts])
    if same.all() or not same.any():
        raise MotError(
            f"of {len(same)} pairs of tracks {same.sum()} are of one person; evidence can be "
            "weighed only where some are and some are not: give more sequences, or greater gaps_s"
        )
    weights = fitted(terms, same)
    total = weights[:2].sum()
    rows = []
    columns = [*terms.T, terms @ weights]
    for name, column, weight in zip((*TERMS, "all"), columns, [*weights, total], strict=True):
        pairs = Compared(column[same], column[~same])
        rows.append(
            {
                "term": name,
                "pairs_same": len(pairs.same),
                "pairs_other": len(pairs.other),
                "area": pairs.area,
                "found": pairs.found,
                "weight": float(weight / total),
            }
        )
    return rows


def rule_rows(passes: Sequence[Tracked], max_gap_s: float) -> list[Row]:
    """Right and wrong joins by rules of different strictness."""
    known = []
    for each in passes:
        records = each.looks.records()
        known.append(
            (records, appearances(records, each.looks.spread()), owners(each.truth, each.tracks))
        )
    rows = []
    for rule in RULES:
        right = wrong = of_nobody = 0
        for records, looks, people in known:
            for join in join_over_gaps(records, records, looks, looks, max_gap_s, rule):
                a, b = (people.get(int(records["track_id"][i])) for i in (join.ended, join.begun))
                if a is None or b is None:
                    of_nobody += 1
                elif a == b:
                    right += 1
                else:
                    wrong += 1
        rows.append(
            {
                "evidence": rule.evidence,
                "lead": rule.lead,
                "right": right,
                "wrong": wrong,
                "of_nobody": of_nobody,
            }
        )
    return rows


def pairs_of(each: Tracked, max_gap_s: float) -> tuple[Array, Array]:
    """Pairs of a track that ended and one that begins later: terms (N, 4), and same (N,) bool.

    Tracks of nobody are left out, and pairs that are too far apart to be asked for.
    """
    records = each.looks.records()
    people = owners(each.truth, each.tracks)
    person = np.array([people.get(i, -1) for i in records["track_id"].tolist()], np.int64)
    memory, colour = separate_appearances(records, each.looks.spread())
    terms, same = [np.zeros((0, len(TERMS)))], [np.zeros(0, bool)]
    for b in np.flatnonzero((person >= 0) & (records["views"] > 0)).tolist():
        gap_s = records["first_s"][b] - records["last_s"]
        near = (gap_s > 0) & (gap_s <= max_gap_s) & (person >= 0) & (records["views"] > 0)
        place, size = misfits(records[near], records[b])
        pairs = np.stack([memory[near] @ memory[b], colour[near] @ colour[b], -place, -size], 1)
        asked = place <= FARTHEST
        terms.append(pairs[asked])
        same.append((person[near] == person[b])[asked])
    return np.concatenate(terms), np.concatenate(same)


def fitted(terms: Array, same: Array) -> Array:
    """(F,) weights of a logistic regression with a constant, which is left out."""
    sign = np.where(same, 1.0, -1.0)
    inputs = np.c_[terms, np.ones(len(terms))]

    def loss(weights: Array) -> tuple[float, Array]:
        margin = sign * (inputs @ weights)
        slope = -(sign * expit(-margin)) @ inputs
        ridge = _RIDGE * len(same) * weights
        return float(np.logaddexp(0, -margin).sum() + ridge @ weights / 2), slope + ridge

    found = minimize(loss, np.zeros(inputs.shape[1]), jac=True, method="L-BFGS-B")
    weights: Array = found.x[:-1]
    return weights
