"""Tables of the bench for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from pipeline.speed.readings import Clock, Measure, Reading, Spread
from pipeline.speed.scaling import Scaling
from pipeline.speed.schedule import DRIVER, STORE
from pipeline.speed.student import StudentCost

_CLOCKS = {"wall": "by the clock", "core": "by processor time"}


def measure_tables(measure: Measure) -> list[Table]:
    """Readings, ratios and facts of a measure."""
    title = f"{measure.title}: {measure.on}" if measure.on else measure.title
    tables = []
    if measure.readings:
        speed = _table(title, "side", "frames", "frames/s", "frames/s of a core", "of it")
        for name, readings in measure.readings.items():
            speed.add_row(
                name,
                str(readings[-1].frames),
                _rates(readings, "wall"),
                _rates(readings, "core"),
                _parts(readings),
            )
        tables.append(speed)
    if measure.ratios:
        ratios = _table("" if tables else title, "ratio", "", "min / median / max", "aim")
        for r in measure.ratios:
            aim = "" if r.aim is None else f">= {r.aim:g}"
            ratios.add_row(r.name, _CLOCKS[r.clock], spread(r.spread), aim)
        tables.append(ratios)
    if measure.facts:
        facts = _table("" if tables else title, "fact", "value")
        for name, value in measure.facts.items():
            facts.add_row(name, escape(_value(value)))
        tables.append(facts)
    return tables


def scaling_table(found: Scaling) -> Table:
    """The answer of the model of the schedule."""
    table = _table(
        "where a cluster saturates, by the model of the schedule",
        "GPUs", "frames/s", "requests/s", "rows/s", "store", "driver", "bottleneck", "whole run",
    )  # fmt: skip
    for cluster in found.clusters:
        table.add_row(
            f"{cluster.gpus:,}",
            f"{cluster.frames_s:,.0f}",
            f"{cluster.requests_s:,.1f}",
            f"{cluster.videos_s:,.2f}",
            f"{cluster.use[STORE]:.1%}",
            f"{cluster.use[DRIVER]:.1%}",
            cluster.bottleneck,
            f"{found.whole_run[cluster.gpus]:.0%}",
        )
    return table


def student_tables(figures: StudentCost) -> list[Table]:
    """Size and cost of the student by module, in PyTorch."""
    cost = _table("the student by module, in PyTorch", "module", "parameters, M", "of encoding")
    for name in figures.parameters_m | figures.encode_share:
        parameters, share = figures.parameters_m.get(name), figures.encode_share.get(name)
        cost.add_row(
            name,
            "" if parameters is None else f"{parameters:.3f}",
            "" if share is None else f"{share:.2%}",
        )
    counted = ", ".join(f"{name} {value:.2f}" for name, value in figures.gflops.items())
    cost.caption = f"GFLOPs a frame: {counted}"
    price = _table("semantics and quality, in PyTorch", "part", "ms a frame", "x the branch")
    times = figures.milliseconds
    rows = {
        "semantic branch": "semantics", "quality and gate": "quality", "tracker": "tracker",
        "ViT-B/32 at 224x224": "vit_b32", "ViT-B/32 on the canvas": "vit_b32_canvas",
    }  # fmt: skip
    for name, key in rows.items():
        price.add_row(name, f"{times[key]:.2f}", f"{times[key] / times['semantics']:.1f}")
    price.caption = f"the semantic branch is {figures.semantics_share:.1%} of the tracker's time"
    return [cost, price]


def spread(values: Spread) -> str:
    """Least, median and greatest as text."""
    return " / ".join(f"{v:.3g}" for v in (values.least, values.median, values.greatest))


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(first, title=title or None, title_justify="left", pad_edge=False)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _rates(readings: Sequence[Reading], clock: Clock) -> str:
    return spread(Spread.of(r.rate(clock) for r in readings))


def _parts(readings: Sequence[Reading]) -> str:
    """Parts of the last reading."""
    return ", ".join(f"{name} {value:.3g}" for name, value in readings[-1].parts.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_value(v)}" for name, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_value(v) for v in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
