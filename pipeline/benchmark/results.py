"""Statistics of a benchmark: means over sequences, their intervals, and differences.

Means are plain means over sequences, each the mean over its seeds; sequences that are apart count
in none. Intervals are 95 % percentile bootstraps over sequences (2,000 draws, seeded). They are
coarse for a few sequences, and one sequence has none. Differences are paired: both sides have the
same sequences.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.degrade.conditions import CLEAN

Row = dict[str, Any]
_DRAWS = 2000
DEGRADED = "degraded"
"""Name of the mean over all conditions but clean."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over sequences with its interval; `low` is None for a single sequence."""

    mean: float
    low: float | None
    high: float | None
    sequences: int
    seed_spread: float | None = None  # standard deviation over seeds of the mean

    def __str__(self) -> str:
        if self.low is None:
            return f"{self.mean:.1f}"
        return f"{self.mean:.1f} [{self.low:.1f}, {self.high:.1f}]"

    @property
    def is_nothing(self) -> bool:
        """Whether a difference may be chance, by sequences or by seeds."""
        if self.low is None or self.high is None:
            return True
        if self.seed_spread is not None and abs(self.mean) <= self.seed_spread:
            return True
        return self.low <= 0 <= self.high


class Results:
    """Rows of all cells, by tracker, condition, sequence and seed."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = [row for row in rows if row.get("hota") is not None]
        self.trackers = _unique(row["tracker"] for row in self.rows)
        self.conditions = _unique(row["condition"] for row in self.rows)
        self._at: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in self.rows:
            if not row["apart"]:
                self._at[row["tracker"], row["condition"]].append(row)

    @property
    def degraded(self) -> list[str]:
        """Conditions but clean."""
        return [name for name in self.conditions if name != CLEAN]

    def values(
        self, tracker: str, condition: str, figure: str, degraded: list[str] | None = None
    ) -> dict[tuple[str, int], float]:
        """A figure by (sequence, seed); of `DEGRADED` if all its conditions have it.

        A value that does not depend on the seed counts for every seed. `degraded`: the conditions
        in the mean `DEGRADED`; None for all.
        """
        if condition != DEGRADED:
            found = {}
            for row in self._at[tracker, condition]:
                if row.get(figure) is not None:
                    found[row["sequence"], row["seed"]] = float(row[figure])
            return found
        names = self.degraded if degraded is None else degraded
        parts = [self.values(tracker, name, figure) for name in names]
        if not parts or not all(parts):
            return {}
        keys = {key for part in parts for key in part}
        first = {s: min(seed for q, seed in keys if q == s) for s, _ in keys}
        found = {}
        for sequence, seed in sorted(keys):
            here = [p.get((sequence, seed), p.get((sequence, first[sequence]))) for p in parts]
            if all(value is not None for value in here):
                found[sequence, seed] = float(np.mean([v for v in here if v is not None]))
        return found

    def estimate(self, tracker: str, condition: str, figure: str = "hota") -> Estimate | None:
        """The mean of a figure; None if there is no such cell."""
        return _estimate(self.values(tracker, condition, figure))

    def difference(
        self, tracker: str, reference: str, condition: str, other: Results | None = None
    ) -> Estimate | None:
        """HOTA of a tracker minus that of a reference, which may be of other results.

        `DEGRADED` is the mean over the conditions that both have.
        """
        other = other or self
        both = [n for n in self.degraded if self._at[tracker, n] and other._at[reference, n]]
        values = self.values(tracker, condition, "hota", both)
        references = other.values(reference, condition, "hota", both)
        return _estimate(_minus(values, references))


def _minus(
    values: dict[tuple[str, int], float], references: dict[tuple[str, int], float]
) -> dict[tuple[str, int], float]:
    first = {s: min(seed for q, seed in references if q == s) for s, _ in references}
    found = {}
    for (sequence, seed), value in values.items():
        fallback = references.get((sequence, first.get(sequence, seed)))
        base = references.get((sequence, seed), fallback)
        if base is not None:
            found[sequence, seed] = value - base
    return found


def _estimate(values: dict[tuple[str, int], float]) -> Estimate | None:
    if not values:
        return None
    sequences = sorted({sequence for sequence, _ in values})
    seeds = sorted({seed for _, seed in values})
    means = np.array([np.mean([v for (s, _), v in values.items() if s == n]) for n in sequences])
    spread = None
    if len(seeds) > 1:
        spread = float(np.std([np.mean([v for (_, k), v in values.items() if k == seed])
                               for seed in seeds], ddof=1))  # fmt: skip
    low = high = None
    if len(means) > 1:
        draws = np.random.default_rng(0).integers(len(means), size=(_DRAWS, len(means)))
        low, high = map(float, np.percentile(means[draws].mean(axis=1), (2.5, 97.5)))
    return Estimate(float(means.mean()), low, high, len(sequences), spread)


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
