"""Benchmark trackers: ``vsdmot eval /data/MOT17/train trackers=[student,bytetrack]``.

Every cell (sequence, condition, tracker, seed) is computed once; a second run computes the missing
ones. Exit codes: 0 done; 1 a sequence was left out, or a cell failed; 2 a bad setting; 130 stopped
by Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from jobs.cli import (
    EXIT_BAD_CONFIG,
    EXIT_DONE,
    EXIT_FAILED,
    console,
    fail,
    load_config,
    print_config,
    warn,
)
from model.settings import NotEmpty, Range, Share, check, flat_settings
from pipeline.runtime.settings import ClusterConfig, MlflowConfig

if TYPE_CHECKING:
    from pipeline.benchmark.plan import EvalSettings, Unit
    from pipeline.benchmark.unit import UnitResult
    from pipeline.datasets.layouts import DataSet
    from pipeline.trackers.spec import TrackerSpec


@dataclass(frozen=True, slots=True)
class EvalConfig:
    """Settings of `vsdmot eval`.

    Attributes:
        data: folder of sequences in MOTChallenge or KITTI layout; null: synthetic sequences, which
            are made first.
        sequences: names of the sequences to use; empty: all in the folder.
        frames: number of frames from the start of each sequence; null: all.
        output: folder or URL for cells and tables.
        weights: weights file of the tracker named student.
        students: further students, NAME@WEIGHTS each, whose names can be used in trackers.
        detectors: detectors of other projects, NAME@FILE each: a YOLOX .onnx or an OpenVINO SSD
            .xml.
        trackers: trackers to score; the first is the reference. student, or student:VARIANT such
            as student:gate_off; NAME@WEIGHTS: another student; bytetrack+DETECTIONS,
            ocsort+DETECTIONS or sort+DETECTIONS, where DETECTIONS is student (the default), the
            name of a detector, or det for det.txt; NAME@FOLDER: result files.
        degradations: kinds of degradation beside clean; all or none are also possible.
        severities: severities of each kind, 1 (weakest) to 5.
        seeds: seeds of the degradations; each gives another one of the same kind and severity.
        preprocessing: true: predictions on distractors do not count, as in MOT16 and MOT17.
        trusted: score from which bytetrack, ocsort and sort take a detection of a detector as
            certain.
        apart: names of sequences that are reported, but left out of all means.
        name: name under which the table of this run is kept; null: it is not kept.
        baseline: run to compare with: the name of a kept run, or a rows.parquet; null: none.
        window: number of frames that are encoded as one batch.
        pictures: draw the worst moments on the HTML page.
        memory: measure the peak memory of each tracker, in a process of its own.
        cluster: where the work runs.
        mlflow: where the run is logged.
    """

    job: ClassVar[str] = "eval"
    about: ClassVar[str] = "Score trackers on sequences with ground truth, clean and degraded."

    data: str | None = None
    sequences: tuple[str, ...] = ()
    frames: Annotated[int, Range(1)] | None = None
    output: Annotated[str, NotEmpty()] = "runs/eval"
    weights: Annotated[str, NotEmpty()] = "weights/vsdmot-nano.safetensors"
    students: tuple[str, ...] = ()
    detectors: tuple[str, ...] = ()
    trackers: tuple[str, ...] = ("student",)
    degradations: tuple[str, ...] = ()
    severities: tuple[Annotated[int, Range(1, 5)], ...] = (1, 3, 5)
    seeds: Annotated[tuple[int, ...], NotEmpty()] = (0,)
    preprocessing: bool = True
    trusted: Share = 0.5
    apart: tuple[str, ...] = ()
    name: str | None = None
    baseline: str | None = None
    window: Annotated[int, Range(1, 256)] = 8
    pictures: bool = True
    memory: bool = True
    cluster: ClusterConfig = ClusterConfig()
    mlflow: MlflowConfig = MlflowConfig()

    def __post_init__(self) -> None:
        check(self)
        self.cluster.number()  # refuses a range


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(EvalConfig, argv)
    print_config(console, config)
    from model.track.checkpoint import CheckpointError
    from pipeline.datasets.mot import MotError
    from pipeline.degrade.conditions import ConditionError
    from pipeline.storage.files import StorageError
    from pipeline.trackers.detectors import DetectorError
    from pipeline.trackers.spec import SpecError
    from pipeline.tracking.on_ray import ClusterError

    try:
        return run(config)
    except (CheckpointError, ConditionError, DetectorError, MotError, SpecError) as error:
        fail(str(error), EXIT_BAD_CONFIG)
    except (ClusterError, StorageError) as error:
        fail(str(error), EXIT_FAILED)
    except KeyboardInterrupt:
        fail("stopped; run the same command again to resume", 130)


def run(config: EvalConfig) -> int:
    """Compute the missing cells and make the tables; returns the exit code."""
    from pipeline.benchmark.memory import peak_memories
    from pipeline.benchmark.on_ray import missing_units
    from pipeline.benchmark.output import Findings, log_results, publish
    from pipeline.benchmark.plan import plan_cells
    from pipeline.benchmark.unit import Spent
    from pipeline.degrade.conditions import conditions
    from pipeline.runtime.mlflow_run import MlflowRun

    data, settings = _data(config)
    trackers = _trackers(config)
    cells = plan_cells(
        list(data.sequences.values()),
        conditions(config.degradations, config.severities, config.seeds),
        trackers,
        settings,
    )
    units = missing_units(cells, data.sequences, settings)
    todo = sum(len(unit.cells) for unit in units)
    minutes = sum(unit.core_s for unit in units) / 60
    console.print(
        f"{len(cells)} cells: {len(cells) - todo} exist already, {todo} to compute"
        + (f", about {max(1, round(minutes))} core-minutes" if todo else "")
    )
    left_out, damaged = dict(data.left_out), {}
    for name, reason in left_out.items():
        warn(f"left out: {name}: {reason}")
    spent = Spent()
    for result in _computed(config, units):
        spent.add(result)
        if result.bad_data is not None:
            damaged[result.sequence] = result.bad_data
        for tracker, reason in result.failed.items():
            left_out[f"{result.sequence}, {result.condition.name}, {tracker}"] = reason
            warn(f"failed: {result.sequence}, {result.condition.name}, {tracker}: {reason}")
    if spent.frames:
        console.print(str(spent), highlight=False)
    memory = {}
    if config.memory:
        with console.status("measuring peak memory, each tracker in a process of its own"):
            memory = peak_memories(trackers, data.sequences, settings, warn)
    published = publish(
        cells,
        data,
        settings,
        Findings(config.apart, damaged, left_out, memory),
        config.name,
        config.baseline,
        config.pictures,
    )
    if published is None:
        fail("no cell could be computed; the reasons are above", EXIT_FAILED)
    console.print(published.markdown, markup=False, highlight=False, soft_wrap=True)
    if config.mlflow.enabled:
        log = MlflowRun(config.mlflow.uri, config.mlflow.experiment, warn)
        log_results(
            log, {"job": "eval", **flat_settings(config)}, published.results, published.files
        )
    console.print(f"page: {settings.output}/report.html", soft_wrap=True, highlight=False)
    return EXIT_FAILED if left_out or published.damaged else EXIT_DONE


def _data(config: EvalConfig) -> tuple[DataSet, EvalSettings]:
    from pathlib import Path

    from pipeline.benchmark.plan import EvalSettings
    from pipeline.datasets.layouts import read_data
    from pipeline.datasets.synthetic import make_synthetic

    output = config.output.rstrip("/")
    local = Path("runs/synthetic") if "://" in output else Path(output) / "synthetic"
    root = config.data or make_synthetic(local)
    settings = EvalSettings(
        output=output if "://" in output else str(Path(output).absolute()),
        frames=config.frames,
        preprocessing=config.preprocessing,
        trusted=config.trusted,
        window=config.window,
        synthetic=config.data is None,
    )
    return read_data(root, list(config.sequences)), settings


def _trackers(config: EvalConfig) -> list[TrackerSpec]:
    from pathlib import Path

    from pipeline.trackers.spec import pairs, parse_trackers

    students = {"student": config.weights, **pairs(config.students, "students")}
    detectors = pairs(config.detectors, "detectors")
    absolute = [{k: str(Path(v).absolute()) for k, v in d.items()} for d in (students, detectors)]
    return parse_trackers(config.trackers, *absolute)


def _computed(config: EvalConfig, units: list[Unit]) -> Iterator[UnitResult]:
    """Compute units with a progress bar of expected core-seconds."""
    from pipeline.benchmark.on_ray import compute_here, compute_on_ray

    if not units:
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("cells", total=sum(unit.core_s for unit in units))
        if config.cluster.number() == 0:
            yield from compute_here(units, lambda core_s: progress.advance(task, core_s))
            return
        from pipeline.tracking.on_ray import connected

        costs = {(u.sequence.name, u.condition): u.core_s for u in units}
        with connected(config.cluster.address, config.cluster.number()):
            for result in compute_on_ray(units, config.cluster.number()):
                progress.advance(task, costs[result.sequence, result.condition])
                yield result


if __name__ == "__main__":
    sys.exit(main())
