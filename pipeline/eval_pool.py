"""Spread the units of a benchmark over a Ray cluster, or compute them here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError

from pipeline.cells import Cell
from pipeline.evaluation import EvalSettings, Unit, UnitResult, run_unit
from pipeline.storage import list_stems

_TRIES = 3  # a unit whose worker dies runs elsewhere; cells it had published stay


def missing_units(
    cells: Sequence[Cell], sequences: dict[str, Any], settings: EvalSettings
) -> list[Unit]:
    """What is left to do, most work first."""
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
    return sorted(units, key=lambda unit: -unit.cost)


def compute_here(units: Sequence[Unit], progress: Callable[[int], None]) -> Iterator[UnitResult]:
    """One unit after the other in this process; `progress` is told of frames."""
    for unit in units:
        yield run_unit(unit, progress)


def compute_on_ray(units: Sequence[Unit], workers: int | None) -> Iterator[UnitResult]:
    """On the connected cluster, at most `workers` at a time (None: as many as there is room for).

    A unit whose worker or node dies is tried again elsewhere; one that keeps killing its workers
    comes back with that as the reason.
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
            yield UnitResult(unit.sequence.name, unit.condition.name, (), names)
