"""Benchmark: ``vsdmot eval /data/MOT17/train trackers=[student,bytetrack]``.

Every cell (sequence, condition, tracker, seed) is computed once; running again does what is
missing. Exit codes: 0 done; 1 something was left out or failed; 2 a bad setting.
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
        data: folder of sequences, MOTChallenge or KITTI layout; null: drawn ones.
        sequences: names; empty: all there are.
        frames: frames from each start; null: all.
        output: folder or URL of cells and tables.
        weights: what `student` runs on.
        students: more students, NAME@WEIGHTS each, to name in trackers.
        detectors: NAME@FILE each: YOLOX .onnx or OpenVINO SSD .xml.
        trackers: student, student:gate_off, NAME@WEIGHTS, bytetrack+student, ocsort+NAME of a
            detector, sort+det for det.txt, NAME@FOLDER of result files; the first is the reference.
        degradations: kinds of degradation besides clean; all or none.
        severities: of each kind.
        seeds: draws of each degradation.
        preprocessing: the MOT16/17 rule: predictions on distractors do not count.
        trusted: score from which a peer trusts a detector's detections.
        apart: sequences reported, but left out of every mean.
        name: keep this run's table under a name.
        baseline: name of a kept run, or a rows.parquet, to compare with.
        window: frames encoded as one batch.
        pictures: draw the worst moments on the HTML page.
        memory: measure each tracker's peak memory, in a process of its own.
        cluster: where the work runs.
        mlflow: where it is logged.
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
        self.cluster.number()  # a range is refused


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
        fail("interrupted; run the same command again to go on from here", 130)


def run(config: EvalConfig) -> int:
    """Compute what is missing, make the tables; returns the exit code."""
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
        f"{len(cells)} cells, {len(cells) - todo} of them there, {todo} to compute"
        + (f": some {max(1, round(minutes))} core-minutes" if todo else "")
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
        with console.status("peak memory, each tracker in a process of its own"):
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
        fail("not one cell could be computed", EXIT_FAILED)
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
    """Compute, with a bar: of frames here, of what units should take on a cluster."""
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
