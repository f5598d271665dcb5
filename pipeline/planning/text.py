"""A plan as text for a terminal, and as plain values for JSON."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich.table import Table

from model.settings import flat_settings
from pipeline.planning.asked import Dead
from pipeline.planning.calibration import Calibration
from pipeline.planning.config import PlanConfig
from pipeline.planning.estimate import Span
from pipeline.planning.make import Plan
from pipeline.storage.secrets import mask_secrets

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def values(plan: Plan, config: PlanConfig) -> dict[str, Any]:
    """The plan in types of JSON, secrets masked."""
    asked, found = plan.asked, plan.calibration
    memory = asked.memory
    return {
        "input": mask_secrets(config.input),
        "output": mask_secrets(config.output),
        "videos": asked.videos,
        "hours": asked.footage_s / 3600,
        "frames": round(asked.frames),
        "bytes": asked.size_bytes,
        "videos_of_unknown_length": asked.unknown,
        "files": asked.counts.files,
        "done_before": asked.counts.skipped - asked.counts.dead_before,
        "begun_before": asked.begun,
        "dead_letters_before": asked.counts.dead_before,
        "dead_letters": asked.dead_count,
        "dead": [_masked(dead) for dead in asked.dead],
        "unread_files": asked.counts.unread,
        "unread": [_masked(dead) for dead in asked.unread],
        "modes": dict(asked.modes),
        "windows": asked.windows,
        "ways": asked.ways,
        "device": asked.place.device,
        "workers": plan.estimate.workers,
        "workers_with_own_core": plan.estimate.sharing,
        "memory_worker_bytes": memory.total if memory else None,
        "memory_bytes": memory.total * plan.estimate.workers if memory else None,
        "time": asdict(plan.estimate.time) if plan.estimate.time else None,
        "disk": asdict(plan.estimate.disk) if plan.estimate.disk else None,
        "cost": asdict(plan.estimate.cost) if plan.estimate.cost else None,
        "currency": config.currency,
        "notes": [*plan.estimate.notes],
        "trial": _trial_values(found) if found else None,
        "settings": {k: _text(v) for k, v in flat_settings(config).items()},
    }


def table(plan: Plan, config: PlanConfig) -> Table:
    """The plan as a table of a terminal."""
    shown = Table(title="plan", show_header=False, title_justify="left", pad_edge=False)
    shown.add_column(no_wrap=True)
    shown.add_column()
    for name, text in _rows(plan, config):
        shown.add_row(name, text)
    return shown


def lines(plan: Plan) -> list[str]:
    """What follows the table: dead letters with remedies, and what the figures rest on."""
    asked, found = plan.asked, plan.calibration
    said = [*_listed("dead letters to come", asked.dead, asked.dead_count)]
    said += _listed("not read, storage failed", asked.unread, asked.counts.unread)
    if found is not None:
        said += [f"the trial got no frame of {path}: {why}" for path, why in found.failed.items()]
    said += plan.estimate.notes
    said.append("nothing was written; vsdmot track with the same settings does it")
    return [mask_secrets(line) for line in said]


def _rows(plan: Plan, config: PlanConfig) -> Iterable[tuple[str, str]]:
    asked, estimate = plan.asked, plan.estimate
    counts = asked.counts
    yield "videos", f"{asked.videos:,} to track of {counts.files + counts.unread:,} files found"
    if config.output:
        done = counts.skipped - counts.dead_before
        begun = f"; {asked.begun:,} are begun, and counted as if they were not" * bool(asked.begun)
        yield "done before", f"{done:,}{begun}"
    if asked.dead_count or counts.dead_before:
        before = f" (and {counts.dead_before:,} before)" if counts.dead_before else ""
        yield "dead letters", f"{asked.dead_count:,}{before}"
    if not asked.videos:
        return
    footage = f"{asked.footage_s / 3600:,.2f} h, {asked.frames:,.0f} frames, "
    unknown = f"; {asked.unknown:,} of unknown length, guessed by bytes" * bool(asked.unknown)
    yield "footage", footage + size(asked.size_bytes) + unknown
    for number, way in enumerate(asked.ways):
        yield "" if number else "split.mode", way
    workers = f"{estimate.workers:,} on {'GPUs' if asked.place.device == 'cuda' else 'CPUs'}"
    yield "workers", workers + ("" if asked.place.here else " of the cluster")
    if asked.memory is not None:
        whole = size(asked.memory.total * estimate.workers)
        yield "memory", f"{whole} in all; a worker at most {asked.memory}"
    if estimate.disk is not None:
        yield "output", f"about {size(estimate.disk.output)} of tables, by {estimate.disk.source}"
        yield "temporary disk", f"at most about {size(estimate.disk.temporary)} of all workers"
    if plan.calibration is not None:
        yield "trial", _trial(plan.calibration)
    if (time := estimate.time) is not None:
        yield "time", _span(time.wall_s, duration) + f", {duration(time.start_s)} of it to start"
        yield (
            "",
            (
                f"{time.frames_s:,.1f} frames/s of a worker; workers are busy "
                f"{100 * time.busy:.0f} % of the time"
            ),
        )
        yield "", f"at least {duration(time.longest_s)} with any number of workers: {time.longest}"
        yield "paid", _span(time.worker_hours, lambda hours: f"{hours:,.2f}") + " worker-hours"
    if estimate.cost is not None:
        price = f"{config.price_per_hour:g} {config.currency} an hour of a worker"
        yield "cost", f"{_span(estimate.cost, _money)} {config.currency} at {price}"


def _trial(found: Calibration) -> str:
    stretches = len(found.readings)
    frames = sum(r.frames for r in found.readings)
    at_once = f", {found.streams} videos at once in each" if found.streams > 1 else ""
    return (
        f"{stretches} stretches, {frames:,} frames, {found.processes} processes at once{at_once}, "
        f"in {found.runtime}"
    )


def _span(span: Span, shown: Any) -> str:
    expected = f"about {shown(span.expected)}"
    if span.low is None or span.high is None:
        return expected
    return f"{expected} ({shown(span.low)} to {shown(span.high)})"


def _listed(title: str, dead: list[Dead], count: int) -> Iterable[str]:
    if not count:
        return
    yield f"{title}: {count:,}"
    for one in dead:
        yield f"  {one.path}: {one.reason}"
        yield f"    {one.remedy}"
    if count > len(dead):
        yield f"  … and {count - len(dead):,} more; plan.listed=null lists all"


def _money(sum_: float) -> str:
    return f"{sum_:,.2f}" if sum_ >= 0.01 or not sum_ else "less than 0.01"


def duration(seconds: float) -> str:
    """Seconds as text with two units."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def size(count: float) -> str:
    """Bytes as text, in steps of a thousand."""
    unit = 0
    while count >= 1000 and unit < len(_UNITS) - 1:
        count, unit = count / 1000, unit + 1
    return f"{count:,.{0 if unit == 0 else 1}f} {_UNITS[unit]}"


def _masked(dead: Dead) -> dict[str, str]:
    return {name: mask_secrets(text) for name, text in asdict(dead).items()}


def _trial_values(found: Calibration) -> dict[str, Any]:
    return asdict(found) | {"failed": {p: mask_secrets(why) for p, why in found.failed.items()}}


def _text(value: Any) -> Any:
    return mask_secrets(value) if isinstance(value, str) else value
