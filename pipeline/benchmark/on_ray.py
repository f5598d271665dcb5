"""Compute the units of a benchmark on a Ray cluster, or in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError

from pipeline.benchmark.cells import Cell
from pipeline.benchmark.plan import EvalSettings, Unit
from pipeline.benchmark.unit import UnitResult, run_unit
from pipeline.storage.files import list_stems

_TRIES = 3  # of a unit whose worker dies; cells it has published stay


def missing_units(
    cells: Sequence[Cell], sequences: dict[str, Any], settings: EvalSettings
) -> list[Unit]:
    """Units of the missing cells, the longest first."""
    there = list_stems(f"{settings.output.rstrip('/')}/cells")
    groups: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in cells:
        if cell.name not in there:
            place = (cell.sequence, cell.condition.name, cell.condition.seed)
            groups.setdefault(place, []).append(cell)
    units = [
        Unit(sequences[mine[0].sequence], mine[0].condition, tuple(mine), settings)
        for mine in groups.values()
    ]
    return sorted(units, key=lambda unit: -unit.core_s)


def compute_here(units: Sequence[Unit], progress: Callable[[float], None]) -> Iterator[UnitResult]:
    """Compute units in this process; `progress` is called with the parts of `Unit.core_s` done."""
    for unit in units:
        reported = 0.0

        def frames_done(frames: int, unit: Unit = unit) -> None:
            nonlocal reported
            reported += (share := unit.core_s * frames / max(1, unit.frames))
            progress(share)

        yield run_unit(unit, frames_done)
        progress(unit.core_s - reported)  # the rest: work that is not counted by frames


def compute_on_ray(units: Sequence[Unit], workers: int | None) -> Iterator[UnitResult]:
    """Compute units on the connected cluster, `workers` at a time (None: as many as fit).

    A unit whose worker or node dies is tried again on another one. If that fails too often, its
    result has the failure as the reason.
    """
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    room = workers or gpus or max(1, int(resources.get("CPU", 1)) - 1)
    task = ray.remote(num_cpus=0 if gpus else 1, num_gpus=1 if gpus else 0, max_retries=_TRIES)(
        run_unit
    )
    waiting = (
        [replace(u, settings=replace(u.settings, device="cuda")) for u in units]
        if gpus
        else (list(units))
    )
    waiting.reverse()
    running: dict[Any, Unit] = {}
    while waiting or running:
        while waiting and len(running) < room:
            unit = waiting.pop()
            running[task.remote(unit)] = unit
        (ready, *_), _ = ray.wait(list(running), num_returns=1)
        unit = running.pop(ready)
        try:
            yield ray.get(ready)
        except RayError as error:
            reason = f"its worker failed: {str(error).strip().splitlines()[-1]}"
            names = {cell.tracker.name: reason for cell in unit.cells}
            yield UnitResult(unit.sequence.name, unit.condition, failed=names)
