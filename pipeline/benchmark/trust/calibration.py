"""How well chances fit what happened."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.benchmark.metrics import Array

BINS, LEAST = 10, 30
"""Greatest number of bins, and least number of cases in each, because few make errors by chance."""
DRAWS = 200


@dataclass(frozen=True, slots=True)
class Calibration:
    """Chances against what happened.

    Attributes:
        count: Number of cases.
        right: Share of them that happened.
        error: Expected calibration error: mean over the cases of the difference between chance and
            share in their bin, see `BINS`.
        error_by_chance: The same for cases that happen with exactly these chances: as many cases
            have it without any fault of the chances. Mean of `DRAWS` draws.
        brier: Mean squared difference between chance and what happened.
        brier_constant: The same for the constant chance `right`.
        area: Chance that a case that happened has the greater value than one that did not; NaN if
            there are none of one kind.
        bins: (B, 3): mean chance, share that happened, and number of cases of each bin.
    """

    count: int
    right: float
    error: float
    error_by_chance: float
    brier: float
    brier_constant: float
    area: float
    bins: Array


def calibration(chance: Array, right: Array) -> Calibration:
    """Compare chances (T,) with what happened (T,), at least one case.

    Bins hold equal numbers of cases, because most chances lie close together.
    """
    from sklearn.metrics import roc_auc_score

    order = np.argsort(chance, kind="stable")
    parts = np.array_split(order, min(BINS, max(1, len(order) // LEAST)))
    bins = np.array([[chance[p].mean(), right[p].mean(), len(p)] for p in parts])
    drawn = np.random.default_rng(0).random((DRAWS, len(order))) < chance
    by_chance = [_error(bins, np.array([row[p].mean() for p in parts])) for row in drawn]
    share = float(right.mean())
    mixed = 0 < share < 1
    return Calibration(
        count=len(chance),
        right=share,
        error=_error(bins, bins[:, 1]),
        error_by_chance=float(np.mean(by_chance)),
        brier=float(np.mean((chance - right) ** 2)),
        brier_constant=share * (1 - share),
        area=float(roc_auc_score(right, chance)) if mixed else float("nan"),
        bins=bins,
    )


def _error(bins: Array, right: Array) -> float:
    """Expected calibration error of bins of which some shares are right."""
    return float(np.average(np.abs(bins[:, 0] - right), weights=bins[:, 2]))
