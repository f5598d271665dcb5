"""Benchmark: ``python -m jobs.eval data=/data/MOT17/train trackers=[student,bytetrack]``.

Every cell (sequence, condition, tracker, seed) is computed once; running again does what is
missing. Exit codes: 0 done; 1 something was left out or failed; 2 a bad setting.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from jobs.cli import (
    EXIT_BAD_CONFIG,
    EXIT_DONE,
    EXIT_FAILED,
    ClusterConfig,
    JobConfig,
    MlflowConfig,
    console,
    fail,
    flat,
    load_config,
    print_config,
)

if TYPE_CHECKING:
    from pipeline.benchmark.plan import EvalSettings, Unit
    from pipeline.benchmark.unit import UnitResult
    from pipeline.datasets.layouts import DataSet
    from pipeline.trackers.spec import TrackerSpec


class EvalConfig(JobConfig):
    """Settings of `jobs.eval`."""

    job: ClassVar[str] = "eval"
    about: ClassVar[str] = "Score trackers on sequences with ground truth, clean and degraded."

    data: str | None = Field(
        None, description="folder of sequences, MOTChallenge or KITTI layout; null: drawn ones"
    )
    sequences: list[str] = Field(default_factory=list, description="names; empty: all there are")
    frames: int | None = Field(None, ge=1, description="frames from each start; null: all")
    output: str = Field("runs/eval", min_length=1, description="folder or URL of cells and tables")
    weights: str = Field(
        "weights/vsdmot-nano.safetensors", min_length=1, description="what `student` runs on"
    )
    students: list[str] = Field(
        default_factory=list, description="more students, NAME@WEIGHTS each, to name in trackers"
    )
    detectors: list[str] = Field(
        default_factory=list, description="NAME@FILE each: YOLOX .onnx or OpenVINO SSD .xml"
    )
    trackers: list[str] = Field(
        default=["student"],
        description="student, student:gate_off, NAME@WEIGHTS, bytetrack+student, ocsort+NAME of a "
        "detector, sort+det for det.txt, NAME@FOLDER of result files; the first is the reference",
    )
    degradations: list[str] = Field(
        default_factory=list, description="kinds of degradation besides clean; all or none"
    )
    severities: list[int] = Field(default=[1, 3, 5], description="of each kind, 1 to 5")
    seeds: list[int] = Field(default=[0], min_length=1, description="draws of each degradation")
    preprocessing: bool = Field(
        True, description="the MOT16/17 rule: predictions on distractors do not count"
    )
    trusted: float = Field(
        0.5, ge=0, le=1, description="score from which a peer trusts a detector's detections"
    )
    apart: list[str] = Field(
        default_factory=list, description="sequences reported, but left out of every mean"
    )
    name: str | None = Field(None, description="keep this run's table under a name")
    baseline: str | None = Field(
        None, description="name of a kept run, or a rows.parquet, to compare with"
    )
    window: int = Field(8, ge=1, le=256, description="frames encoded as one batch")
    pictures: bool = Field(True, description="draw the worst moments on the HTML page")
    memory: bool = Field(
        True, description="measure each tracker's peak memory, in a process of its own"
    )
    cluster: ClusterConfig = ClusterConfig()
    mlflow: MlflowConfig = MlflowConfig()

    @field_validator("degradations", mode="before")
    @classmethod
    def _word_or_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


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
    from pipeline.benchmark.log import log_results
    from pipeline.benchmark.memory import peak_memories
    from pipeline.benchmark.on_ray import missing_units
    from pipeline.benchmark.output import Findings, publish
    from pipeline.benchmark.plan import plan_cells
    from pipeline.benchmark.unit import Spent
    from pipeline.degrade.conditions import conditions
    from pipeline.runtime.mlflow_run import TrackingLog

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
        _warn(f"left out: {name}: {reason}")
    spent = Spent()
    for result in _computed(config, units):
        spent.add(result)
        if result.bad_data is not None:
            damaged[result.sequence] = result.bad_data
        for tracker, reason in result.failed.items():
            left_out[f"{result.sequence}, {result.condition.name}, {tracker}"] = reason
            _warn(f"failed: {result.sequence}, {result.condition.name}, {tracker}: {reason}")
    if spent.frames:
        console.print(str(spent), highlight=False)
    memory = {}
    if config.memory:
        with console.status("peak memory, each tracker in a process of its own"):
            memory = peak_memories(trackers, data.sequences, settings, _warn)
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
        log = TrackingLog(config.mlflow.uri, config.mlflow.experiment, _warn)
        log_results(log, {"job": "eval", **flat(config)}, published.results, published.files)
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
    return read_data(root, config.sequences), settings


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
        if config.cluster.workers == 0:
            yield from compute_here(units, lambda core_s: progress.advance(task, core_s))
            return
        from pipeline.tracking.on_ray import connected

        costs = {(u.sequence.name, u.condition): u.core_s for u in units}
        with connected(config.cluster.address, config.cluster.workers):
            for result in compute_on_ray(units, config.cluster.workers):
                progress.advance(task, costs[result.sequence, result.condition])
                yield result


def _warn(message: str) -> None:
    console.print(f"[yellow]{escape(message)}[/]", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
