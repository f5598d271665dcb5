"""`vsdmot measure still`: what skipping still frames costs and saves."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from jobs.cli import console
from jobs.measure_output import say_left_out, write_measured
from jobs.measure_settings import FRAMES, MeasureConfig
from pipeline.benchmark.still_measure import Row, quiet_truth, still_row, write_quiet
from pipeline.datasets.boxes import Boxes
from pipeline.datasets.mot import MotError, Sequence, find_sequences, read_sequence
from pipeline.storage.errors import StorageError
from pipeline.tracking.track_video import TrackSettings, open_runtime
from pipeline.video.errors import DecodeError
from pipeline.video.probe import ProbeError


def run_still(config: MeasureConfig) -> int:
    """Measure, print, write `still.parquet` and `still.json`; returns the exit code.

    Raises:
        CheckpointError: the student cannot be used.
        MotError: there is no sequence.
        StorageError: the output cannot be written.
    """
    settings = TrackSettings(config.weights, device=config.device)
    opened = open_runtime(settings)
    rows: list[Row] = []
    left_out: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, video, gt in _videos(config, Path(scratch), left_out):
            with console.status(name):
                try:
                    row, problem = still_row(opened.model, video, name, gt, settings)
                except (ProbeError, DecodeError, StorageError, StopIteration) as error:
                    left_out[name] = str(error) or "has no video file"
                    continue
            if problem is not None:
                left_out[name] = problem
            rows.append(row)
    say_left_out(left_out)
    if not rows:
        raise MotError(f"data={config.data}: no sequence could be read; the reasons are above")
    console.print(still_table(rows))
    return write_measured(config, rows, opened.runtime, left_out)


def _videos(
    config: MeasureConfig, scratch: Path, left_out: dict[str, str]
) -> Iterator[tuple[str, Path, Boxes]]:
    """Name, video and ground truth of each sequence, and of the quiet video made of it."""
    for sequence in map(read_sequence, find_sequences(config.data)):
        if sequence.name in config.apart:
            continue
        if not sequence.video.is_file():
            left_out[sequence.name] = f"{sequence.video} is not a video file"
            continue
        yield sequence.name, sequence.video, sequence.gt
        try:
            yield _quiet(sequence, config.frames or FRAMES, scratch)
        except (ProbeError, DecodeError, StorageError) as error:
            left_out[f"{sequence.name}, quiet"] = str(error)


def _quiet(sequence: Sequence, frames: int, scratch: Path) -> tuple[str, Path, Boxes]:
    path = scratch / f"{len(list(scratch.iterdir()))}.mp4"
    order = write_quiet(sequence, frames, path)
    return f"{sequence.name}, quiet", path, quiet_truth(sequence.gt, order)


def still_table(rows: list[Row]) -> Table:
    """Table of scores by video, without skipping and with it."""
    table = Table("video", title="still frames: encoded all -> skipped", title_justify="left")
    for column in ("frames", "encoded", "HOTA", "IDF1", "people found", "people lost"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["sequence"],
            str(row["frames"]),
            f"{100 * row['encoded'] / row['frames']:.1f} %",
            f"{row['hota_off']:.2f} -> {row['hota_on']:.2f}",
            f"{row['idf1_off']:.2f} -> {row['idf1_on']:.2f}",
            f"{row['people_off']} -> {row['people_on']}",
            str(row["people_lost"]),
        )
    return table
