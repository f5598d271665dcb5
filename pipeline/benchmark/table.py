"""The tables of a benchmark in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.benchmark.results import DEGRADED, Estimate, Results, Row
from pipeline.degrade.conditions import CLEAN

_NONE = "not measured"


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
    """Paired differences of HOTA: of every tracker to one, or to itself in other results."""
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
    note = (
        "Difference in HOTA, 95 % interval over sequences. **better**, **worse**: beyond the "
        "interval; *nothing*: it holds 0, or there is none, or seeds differ as much. The degraded "
        "mean is over the conditions that both have."
    )
    return f"{note}\n\n" + markdown_table(head, lines)


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
    note = "Plain means over sequences, clean but for the second column; counts are sums."
    return f"{note}\n\n" + markdown_table(head, lines)


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
    note = (
        "One thread for the model, decoding beside it, degrading left out. Peak memory: what a "
        "process of its own takes for the tracker on the largest clean sequence, on the CPU, "
        "beyond what it had with its libraries loaded; and all it has then."
    )
    return f"{note}\n\n" + markdown_table(head, lines)


def _average(rows: Sequence[Row], figure: str, decimals: int = 1) -> str:
    values = [row[figure] for row in rows if row.get(figure) is not None]
    return f"{np.mean(values):.{decimals}f}" if values else _NONE


def _signed(found: Estimate | None) -> str:
    if found is None:
        return _NONE
    inside = f" [{found.low:+.1f}, {found.high:+.1f}]" if found.low is not None else ""
    verdict = "*nothing*" if found.is_nothing else "**better**" if found.mean > 0 else "**worse**"
    return f"{found.mean:+.1f}{inside} {verdict}"


def _shown(value: Any) -> str:
    if value is None:
        return "–"  # noqa: RUF001
    return f"{value:.2f}" if isinstance(value, float) and abs(value) <= 1 else f"{value:.4g}"


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; cells may have any characters."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(_cell(c) for c in row) + " |" for row in rows)


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
