"""Compare plans with runs: ``python -m jobs.plan_check input=/my/videos output=/my/scratch``.

Each turn makes a plan, tracks the same archive into a new folder, and prints what was planned, what
came, and the ratio. Plan and run follow each other, so that both meet the same other work of the
machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from rich.table import Table

from jobs.cli import EXIT_DONE, EXIT_FAILED, console, fail, load_config, print_config
from model.settings import NotEmpty, Range, check

_TABLES = ("tracks", "frames", "videos", "seams", "track_summary")


@dataclass(frozen=True, slots=True)
class PlanCheckConfig:
    """Settings of `jobs.plan_check`.

    Attributes:
        input: archive, as of vsdmot track.
        output: folder for the outputs of the runs; it must be new or empty.
        turns: plans and runs.
        settings: further settings of vsdmot track, each key=value.
    """

    job: ClassVar[str] = "plan_check"
    about: ClassVar[str] = "Compare what vsdmot plan says with what vsdmot track does."

    input: Annotated[str, NotEmpty()]
    output: Annotated[str, NotEmpty()]
    turns: Annotated[int, Range(1)] = 2
    settings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class Compared:
    """A figure of a plan, and what came."""

    name: str
    planned: float
    real: float
    low: float | None = None
    high: float | None = None

    @property
    def ratio(self) -> float:
        """What came as a share of what was planned."""
        return self.real / self.planned if self.planned else float("nan")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(PlanCheckConfig, argv)
    print_config(console, config)
    folder = Path(config.output)
    if folder.is_dir() and any(folder.iterdir()):
        fail(f"output: {folder} is not empty; give a new folder", EXIT_FAILED)
    for turn in range(config.turns):
        table = Table(title=f"turn {turn + 1}", title_justify="left")
        for name in ("figure", "planned", "range", "came", "ratio"):
            table.add_column(name, justify="left" if name == "figure" else "right")
        for one in compare(config, folder / f"turn-{turn + 1}"):
            known = one.low is not None and one.high is not None
            table.add_row(
                one.name,
                f"{one.planned:,.1f}",
                f"{one.low:,.1f} to {one.high:,.1f}" if known else "",
                f"{one.real:,.1f}",
                f"{one.ratio:.2f}",
            )
        console.print(table)
    return EXIT_DONE


def compare(config: PlanCheckConfig, output: Path) -> Iterator[Compared]:
    """Make a plan and a run into a new folder; yields the figures of both."""
    fixed = (config.input, str(output), "report=false", "mlflow.enabled=false", *config.settings)
    plan: dict[str, Any] = json.loads(_run("plan", *fixed, "json=true"))
    if plan["time"] is None or plan["disk"] is None:
        fail(f"{config.input}: the plan has no figures: {'; '.join(plan['notes'])}", EXIT_FAILED)
    begun = time.monotonic()
    _run("track", *fixed)
    wall_s = time.monotonic() - begun
    rows = _videos(output)
    dead = len(list((output / "dead_letters").glob("*.parquet")))
    yield Compared("videos", plan["videos"], len(rows))
    yield Compared("dead letters", plan["dead_letters"], dead)
    yield Compared("frames", plan["frames"], sum(row["frames_decoded"] for row in rows))
    pieces = plan["videos"] - plan["modes"].get("parallel", 0) + plan["windows"]
    yield Compared("segments", pieces, sum(row["segments"] for row in rows))
    files = (file for table in _TABLES for file in (output / table).glob("*.parquet"))
    disk = sum(file.stat().st_size for file in files)
    yield Compared("kB of tables", plan["disk"]["output"] / 1e3, disk / 1e3)
    span = plan["time"]["wall_s"]
    yield Compared("seconds", span["expected"], wall_s, span["low"], span["high"])


def _run(command: str, *words: str) -> str:
    """Run a command of vsdmot; returns its output."""
    call = [sys.executable, "-m", "jobs", command, *words]
    done = subprocess.run(call, capture_output=True, text=True)
    if done.returncode not in (0, 3):
        fail(f"vsdmot {command} ended with {done.returncode}: {done.stderr.strip()}", EXIT_FAILED)
    return done.stdout


def _videos(output: Path) -> list[dict[str, Any]]:
    from pipeline.storage.reading import read_batches

    return [row for batch in read_batches(str(output), "videos") for row in batch.to_pylist()]


if __name__ == "__main__":
    sys.exit(main())
