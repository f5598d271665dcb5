"""What a benchmark says: means over sequences, their intervals, differences, a Markdown page.

Means are plain means over sequences, each the mean over its seeds; sequences that are apart count
in none. Intervals are 95 % percentile bootstraps over sequences (2,000 draws, seeded); with a
handful of sequences they are coarse, and with one there is none. Differences are paired: the same
sequences on both sides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.conditions import CLEAN

Row = dict[str, Any]
_DRAWS = 2000
DEGRADED = "degraded"
"""Stands for the mean over all conditions but clean."""
_NONE = "not measured"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over sequences with its interval; `low` is None where one sequence is all there is."""

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
        """Of a difference: whether it may be chance, by sequences or by seeds."""
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

    def values(self, tracker: str, condition: str, figure: str) -> dict[tuple[str, int], float]:
        """A figure by (sequence, seed); of `DEGRADED`, where all its conditions are there.

        What no seed changes stands for every seed.
        """
        if condition != DEGRADED:
            found = {}
            for row in self._at[tracker, condition]:
                if row.get(figure) is not None:
                    found[row["sequence"], row["seed"]] = float(row[figure])
            return found
        parts = [self.values(tracker, name, figure) for name in self.degraded]
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
        """The mean of a figure; None where there is no such cell."""
        return _estimate(self.values(tracker, condition, figure))

    def difference(
        self, tracker: str, reference: str, condition: str, other: Results | None = None
    ) -> Estimate | None:
        """HOTA of a tracker minus that of a reference (of other results, where given)."""
        mine = self.values(tracker, condition, "hota")
        theirs = (other or self).values(reference, condition, "hota")
        return _estimate(_minus(mine, theirs))


def markdown(results: Results, notes: Sequence[str] = ()) -> str:
    """All tables as one page."""
    parts = ["# Benchmark", *notes, "## HOTA", _summary(results)]
    if results.degraded:
        parts += ["## HOTA by condition", _matrix(results)]
    if len(results.trackers) > 1:
        parts += [f"## Against {results.trackers[0]}", against(results, results.trackers[0])]
    parts += ["## Clean, by sequence", _by_sequence(results), "## Speed and size", _speed(results)]
    return "\n\n".join(parts) + "\n"


def against(results: Results, reference: str, other: Results | None = None) -> str:
    """Paired differences of HOTA: every tracker to one, or to itself in other results."""
    head = ["tracker", CLEAN, "degraded mean"]
    lines = []
    for tracker in results.trackers:
        if other is None and tracker == reference:
            continue
        cells = []
        for condition in (CLEAN, DEGRADED):
            base = tracker if other is not None else reference
            found = results.difference(tracker, base, condition, other)
            cells.append(_signed(found))
        lines.append([tracker, *cells])
    said = (
        "Difference in HOTA, 95 % interval over sequences. **better**, **worse**: beyond the "
        "interval; *nothing*: it holds 0, or there is none, or seeds differ as much."
    )
    return f"{said}\n\n" + markdown_table(head, lines)


def _summary(results: Results) -> str:
    head = [
        "tracker", "clean", "degraded mean", "DetA", "AssA", "LocA", "MOTA", "IDF1", "AP50",
        "IDSW", "Frag", "FP", "FN",
    ]  # fmt: skip
    ratios = ("det_a", "ass_a", "loc_a", "mota", "idf1", "ap50")
    counts = ("id_switches", "fragmentations", "false_positives", "false_negatives")
    lines = []
    for tracker in results.trackers:
        cells = [str(results.estimate(tracker, c) or _NONE) for c in (CLEAN, DEGRADED)]
        for figure in ratios:
            found = results.estimate(tracker, CLEAN, figure)
            cells.append(f"{found.mean:.1f}" if found else _NONE)
        for figure in counts:
            values = results.values(tracker, CLEAN, figure)
            seeds = len({seed for _, seed in values}) or 1
            cells.append(f"{sum(values.values()) / seeds:.0f}" if values else _NONE)
        lines.append([tracker, *cells])
    said = "Plain means over sequences, clean but for the second column; counts are sums."
    return f"{said}\n\n" + markdown_table(head, lines)


def _matrix(results: Results) -> str:
    lines = []
    for condition in results.conditions:
        found = [results.estimate(tracker, condition) for tracker in results.trackers]
        lines.append([condition, *(f"{e.mean:.1f}" if e else "–" for e in found)])  # noqa: RUF001
    return markdown_table(["condition", *results.trackers], lines)


def _by_sequence(results: Results) -> str:
    head = [
        "sequence", "tracker", "HOTA", "DetA", "AssA", "LocA", "MOTA", "IDF1", "IDSW", "Frag",
        "MT", "ML", "FP", "FN", "AP50", "quality",
    ]  # fmt: skip
    figures = (
        "hota", "det_a", "ass_a", "loc_a", "mota", "idf1", "id_switches", "fragmentations",
        "mostly_tracked", "mostly_lost", "false_positives", "false_negatives", "ap50", "quality",
    )  # fmt: skip
    lines = []
    rows = [row for row in results.rows if row["condition"] == CLEAN]
    for row in sorted(rows, key=lambda r: (r["sequence"], results.trackers.index(r["tracker"]))):
        name = row["sequence"] + (" (apart)" if row["apart"] else "")
        tracker = row["tracker"] + (f" seed {row['seed']}" if row["seed"] else "")
        lines.append([name, tracker, *(_shown(row.get(figure)) for figure in figures)])
    return markdown_table(head, lines)


def _speed(results: Results) -> str:
    stages = ("decode", "prepare", "detect", "encode", "step", "associate")
    head = [
        "tracker",
        "frames/s",
        *(f"{s} p50/p95 ms" for s in stages),
        "M parameters",
        "GFLOPs",
        "peak memory MB",
    ]
    lines = []
    for tracker in results.trackers:
        rows = [r for r in results.rows if r["tracker"] == tracker and r["condition"] == CLEAN]
        if not rows:
            continue
        cells = [_average(rows, "frames_per_second")]
        for stage in stages:
            half, tail = (_average(rows, f"{stage}_p{share}_ms") for share in (50, 95))
            cells.append(_NONE if half == _NONE else f"{half} / {tail}")
        cells += [_average(rows, "parameters_m"), _average(rows, "gflops")]
        added, whole = (_average(rows, f"{what}_memory_mb", 0) for what in ("peak", "process"))
        cells.append(added if added == _NONE else f"{added} of {whole}")
        lines.append([tracker, *cells])
    said = (
        "One thread for the model, decoding beside it, degrading left out. Peak memory: what a "
        "process of its own takes for the tracker on the largest clean sequence, on the CPU, "
        "beyond what it had with its libraries loaded; and all it has then."
    )
    return f"{said}\n\n" + markdown_table(head, lines)


def _average(rows: Sequence[Row], figure: str, decimals: int = 1) -> str:
    values = [row[figure] for row in rows if row.get(figure) is not None]
    return f"{np.mean(values):.{decimals}f}" if values else _NONE


def _minus(
    mine: dict[tuple[str, int], float], theirs: dict[tuple[str, int], float]
) -> dict[tuple[str, int], float]:
    first = {s: min(seed for q, seed in theirs if q == s) for s, _ in theirs}
    found = {}
    for (sequence, seed), value in mine.items():
        base = theirs.get((sequence, seed), theirs.get((sequence, first.get(sequence, seed))))
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


def _signed(found: Estimate | None) -> str:
    if found is None:
        return _NONE
    inside = f" [{found.low:+.1f}, {found.high:+.1f}]" if found.low is not None else ""
    said = "*nothing*" if found.is_nothing else "**better**" if found.mean > 0 else "**worse**"
    return f"{found.mean:+.1f}{inside} {said}"


def _shown(value: Any) -> str:
    if value is None:
        return "–"  # noqa: RUF001
    return f"{value:.2f}" if isinstance(value, float) and abs(value) <= 1 else f"{value:.4g}"


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; names may hold anything."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(_cell(c) for c in row) + " |" for row in rows)


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
