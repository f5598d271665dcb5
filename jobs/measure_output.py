"""The end of a measure of tracking: what was left out, the rows, and where they were written."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.markup import escape

from jobs.cli import EXIT_DONE, EXIT_FAILED, console
from jobs.measure_settings import MeasureConfig
from model.track.checkpoint import file_sha256
from model.version import code_version
from pipeline.benchmark.measure import write_rows


def say_left_out(left_out: Mapping[str, str]) -> None:
    """Name the sequences that were left out, with the reasons."""
    for name, reason in left_out.items():
        console.print(f"[yellow]left out:[/] {escape(name)}: {escape(reason)}", soft_wrap=True)


def write_measured(
    config: MeasureConfig,
    rows: Sequence[dict[str, Any]],
    runtime: str,
    left_out: Mapping[str, str],
) -> int:
    """Write the rows with what they depend on; returns the exit code.

    Args:
        config: of the measure.
        rows: its result.
        runtime: what the student ran in.
        left_out: reason by sequence.

    Raises:
        StorageError: the output cannot be written.
    """
    record = {
        "config": asdict(config),
        "weights_sha256": file_sha256(config.weights),
        "runtime": runtime,
        "code_version": code_version(),
        "left_out": dict(left_out),
    }
    written = write_rows(config.output, config.what, list(rows), record)
    console.print(f"written to {written}", soft_wrap=True, highlight=False)
    return EXIT_FAILED if left_out else EXIT_DONE
