"""Score the student on sequences with ground truth: `python -m jobs.eval data=… weights=…`."""

from __future__ import annotations

import hashlib
import json
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import Field
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jobs.cli import EXIT_DONE, EXIT_FAILED, JobConfig, fail, load_config, print_config
from model.allocator import keep_large_blocks
from model.checkpoint import CheckpointError, file_sha256, load_tracker
from model.tracker import Tracker
from pipeline.decode import DecodeError
from pipeline.evaluation import Predictions, score, track_sequence
from pipeline.mot import MotError, Sequence, find_sequences, read_sequence, write_results
from pipeline.probe import ProbeError
from pipeline.run_record import code_version
from pipeline.storage import StorageError

_LIBRARIES = ("motmetrics", "trackeval", "pycocotools", "numpy", "torch", "timm", "av")
_WIDTH = 140


class EvalConfig(JobConfig):
    """Settings of `jobs.eval`."""

    job: ClassVar[str] = "eval"
    about: ClassVar[str] = "Track sequences with ground truth and score tracks and detections."

    data: str = Field(description="folder with sequences in MOTChallenge layout, at any depth")
    weights: str = Field(description="the student's checkpoint")
    output: str = Field(
        "runs/eval", description="folder for eval.parquet, eval.json and tracks/*.txt"
    )
    preprocessing: bool = Field(
        True, description="the MOT16/17 rule: predictions on distractors do not count"
    )
    apart: list[str] = Field(
        default_factory=list, description="sequences reported, but left out of mean and combined"
    )
    window: int = Field(8, ge=1, le=256, description="frames encoded as one batch")
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="cpu, cuda or cuda:N")


def results_table(rows: list[dict[str, Any]]) -> Table:
    """The rows for the terminal."""
    columns = {
        "AP50": "ap50", "recall": "recall_at_score", "max recall": "recall", "HOTA": "hota",
        "DetA": "det_a", "AssA": "ass_a", "MOTA": "mota", "IDF1": "idf1", "IDSW": "id_switches",
        "FP": "false_positives", "FN": "false_negatives", "frames/s": "frames_per_second",
    }  # fmt: skip
    table = Table(pad_edge=False)
    table.add_column("sequence", no_wrap=True)
    for title in columns:
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["sequence"] + (" (apart)" if row["apart"] else ""),
            *(_shown(row.get(key)) for key in columns.values()),
            style="bold" if row["sequence"] in ("MEAN", "COMBINED") else "",
        )
    return table


def _shown(value: float | int | None) -> str:
    if value is None:
        return "–"  # noqa: RUF001
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def main(argv: list[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(EvalConfig, argv)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)  # a log has no width of its own to fit the table to
    print_config(console, config)
    try:
        sequences = {s.name: s for s in map(read_sequence, find_sequences(config.data))}
        tracker, metadata = load_tracker(config.weights, config.device)
    except (MotError, CheckpointError) as error:
        fail(str(error), EXIT_FAILED)
    # As jobs.track does: how a sum is split over threads changes its last bits, and the tracks
    # scored here are to be the ones that it writes.
    torch.set_num_threads(1)
    keep_large_blocks()
    predictions, left_out = {}, {}
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("frames", total=sum(s.length for s in sequences.values()))
        for name, sequence in sequences.items():
            progress.update(task, description=name)
            try:
                predictions[name] = track_sequence(
                    tracker, sequence, config.window, config.device,
                    lambda count: progress.advance(task, count),
                )  # fmt: skip
            except (MotError, ProbeError, DecodeError, StorageError) as error:
                left_out[name] = str(error)
    scored = {name: s for name, s in sequences.items() if name in predictions}
    for name, reason in left_out.items():
        console.print(f"[yellow]left out:[/] {name}: {reason}", soft_wrap=True, highlight=False)
    if not scored:
        fail(f"{config.data}: not one sequence could be tracked", EXIT_FAILED)
    damaged = [name for name, p in predictions.items() if p.problem]
    for name in damaged:
        console.print(f"[yellow]kept apart:[/] {name}: {predictions[name].problem}", soft_wrap=True)
    threshold = tracker.config.birth_threshold
    rows = score(scored, predictions, [*config.apart, *damaged], threshold, config.preprocessing)
    console.print(results_table(rows))
    provenance = _provenance(config, tracker, scored) | {
        "training": dict(metadata.training),
        "left_out": left_out,
    }
    _write(Path(config.output), rows, provenance, predictions)
    console.print(
        f"preprocessing (MOT16/17 distractors): {'on' if config.preprocessing else 'off'}; "
        f"recall at score {threshold:g}; percent; weights {provenance['weights_sha256'][:12]}; "
        f"written to {config.output}",
        soft_wrap=True, highlight=False,
    )  # fmt: skip
    return EXIT_FAILED if left_out else EXIT_DONE


def _provenance(
    config: EvalConfig, tracker: Tracker, sequences: dict[str, Sequence]
) -> dict[str, Any]:
    truth = hashlib.sha256()
    for name, sequence in sequences.items():
        truth.update(name.encode() + (sequence.folder / "gt" / "gt.txt").read_bytes())
    return {
        "config": config.model_dump(mode="json"),
        "weights_sha256": file_sha256(config.weights),
        "ground_truth_sha256": truth.hexdigest(),
        "preprocessing": config.preprocessing,
        "input": [tracker.config.input_height, tracker.config.input_width],
        "birth_threshold": tracker.config.birth_threshold,
        "code_version": code_version(),
        "libraries": {name: version(name) for name in _LIBRARIES},
        "threads": torch.get_num_threads(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _write(
    output: Path,
    rows: list[dict[str, Any]],
    provenance: dict[str, Any],
    predictions: dict[str, Predictions],
) -> None:
    (output / "tracks").mkdir(parents=True, exist_ok=True)
    for name, prediction in predictions.items():
        write_results(output / "tracks" / f"{name}.txt", prediction.tracks)
    table = pa.Table.from_pylist([{**dict.fromkeys(rows[0]), **row} for row in rows])
    stamp = {"provenance": json.dumps(provenance)}
    pq.write_table(table.replace_schema_metadata(stamp), output / "eval.parquet")
    # JSON has no NaN: what does not exist is null.
    plain = [{k: None if v != v else v for k, v in row.items()} for row in rows]
    text = json.dumps({"provenance": provenance, "rows": plain}, indent=2, allow_nan=False)
    (output / "eval.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
