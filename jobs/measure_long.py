"""`vsdmot measure split`, `reid`, `evidence`, `looks`: what windows cost, who is found again."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from jobs.cli import console
from jobs.measure_output import say_left_out, write_measured
from jobs.measure_settings import MeasureConfig
from pipeline.benchmark.long.evidence_measure import evidence_rows, rule_rows
from pipeline.benchmark.long.looks_measure import KINDS, look_rows
from pipeline.benchmark.long.recording import write_blackouts, write_recording
from pipeline.benchmark.long.reid_measure import Tracked, reid_row, tracked
from pipeline.benchmark.long.split_measure import Row, split_rows
from pipeline.datasets.boxes import evaluated
from pipeline.datasets.mot import MotError, Sequence, find_sequences, read_sequence
from pipeline.inference.runtime import Runtime
from pipeline.tracking.track_video import TrackSettings, open_runtime
from pipeline.video.errors import DecodeError
from pipeline.video.probe import ProbeError


@dataclass(frozen=True, slots=True)
class _Given:
    """What a measure works on; `scratch` is a folder for its recordings."""

    config: MeasureConfig
    model: Runtime
    settings: TrackSettings
    sequences: list[Sequence]
    scratch: Path


def run_long(config: MeasureConfig) -> int:
    """Measure, print, write a `.parquet` and a `.json` of its name; returns the exit code.

    Raises:
        CheckpointError: the student cannot be used.
        MotError: there is no sequence, or a video cannot be read.
        StorageError: the output cannot be written.
    """
    settings = TrackSettings(config.weights, device=config.device)
    opened = open_runtime(settings)
    sequences, left_out = _sequences(config)
    measures = {"split": _split, "reid": _reid, "evidence": _evidence, "looks": _looks}
    measure = measures[config.what]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            given = _Given(config, opened.model, settings, sequences, Path(scratch))
            rows, table = measure(given)
    except (DecodeError, ProbeError) as error:
        raise MotError(f"data={config.data}: {error}") from error
    say_left_out(left_out)
    names = ", ".join(sequence.name for sequence in sequences)
    console.print(f"sequences: {names}", soft_wrap=True, highlight=False)
    console.print(table)
    return write_measured(config, rows, opened.runtime, left_out)


def _split(given: _Given) -> tuple[list[Row], Table]:
    with console.status("writing the recording"):
        recording = write_recording(
            given.sequences, given.config.minutes, given.scratch / "recording.mp4"
        )
    with console.status(f"tracking {recording.frames} frames"):
        rows = split_rows(
            given.model, recording, given.settings, given.config.windows, given.config.overlap_s
        )
    return rows, split_table(rows)


def _reid(given: _Given) -> tuple[list[Row], Table]:
    passes = _blackouts(given, (False,))
    rows = [reid_row(passes, gap_s) for gap_s in given.config.gaps_s]
    return rows, reid_table(rows)


def _evidence(given: _Given) -> tuple[list[Row], Table]:
    passes = _blackouts(given, (False, True))
    longest_s = max(given.config.gaps_s)
    console.print(rule_table(rule_rows(passes, longest_s)))
    rows = evidence_rows(passes, longest_s)
    return rows, evidence_table(rows)


def _blackouts(given: _Given, degraded: tuple[bool, ...]) -> list[Tracked]:
    """Each sequence with black stretches, clean and degraded as wanted.

    Raises:
        MotError: No sequence is long enough.
    """
    passes: list[Tracked] = []
    for sequence in given.sequences:
        with console.status(sequence.name):
            for poor in degraded:
                for recording in write_blackouts(sequence, given.scratch / "recording.mp4", poor):
                    name = f"{sequence.name} {len(passes)}"
                    passes.append(tracked(given.model, recording, name, given.settings))
    if not passes:
        raise MotError(
            f"data={given.config.data}: every sequence is too short to go black in between"
        )
    return passes


def _looks(given: _Given) -> tuple[list[Row], Table]:
    with console.status("tracking"):
        rows = look_rows(given.model, given.sequences, given.settings)
    return rows, look_table(rows)


def _sequences(config: MeasureConfig) -> tuple[list[Sequence], dict[str, str]]:
    """Sequences with a video and people to follow, and why others are left out."""
    found = [read_sequence(folder) for folder in find_sequences(config.data)]
    left_out: dict[str, str] = {}
    kept = []
    for sequence in found:
        if sequence.name in config.apart:
            continue
        if not sequence.video.is_file():
            left_out[sequence.name] = f"{sequence.video} is not a video file"
        elif not len(evaluated(sequence.gt)):
            left_out[sequence.name] = f"{sequence.gt_file} holds no person to follow"
        else:
            kept.append(sequence)
    if not kept:
        raise MotError(f"data={config.data}: no sequence has a video and people to follow")
    return kept, left_out


def split_table(rows: list[Row]) -> Table:
    """Table of scores by number of windows, and of the people who cross their seams."""
    table = Table("windows", title="tracking in windows", title_justify="left")
    for column in (
        "HOTA",
        "lost",
        "IDF1",
        "lost",
        "switches",
        "right at seams",
        "id kept",
        "one pass",
    ):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row["windows"]),
            f"{row['hota']:.2f}",
            f"{row['hota_lost']:.2f}",
            f"{row['idf1']:.2f}",
            f"{row['idf1_lost']:.2f}",
            str(row["id_switches"]),
            f"{row['crossed_right']} of {row['crossings']}",
            f"{row['near_kept']} of {row['near']}",
            f"{row['one_pass_kept']} of {row['one_pass_near']}",
        )
    return table


def reid_table(rows: list[Row]) -> Table:
    """Table of people who come back, by the greatest gap."""
    table = Table("reid.max_gap_s", title="people who come back", title_justify="left")
    for column in ("kept the id", "joins", "wrong", "of nobody", "IDF1", "HOTA", "switches"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"{row['max_gap_s']:g}",
            f"{row['kept']} of {row['returns']}",
            str(row["joins"]),
            str(row["joins_wrong"]),
            str(row["joins_of_nobody"]),
            f"{row['idf1']:.2f}",
            f"{row['hota']:.2f}",
            str(row["id_switches"]),
        )
    return table


def evidence_table(rows: list[Row]) -> Table:
    """Table of what each term of the evidence says, and its weight."""
    table = Table("evidence", title="one person or two", title_justify="left")
    for column in ("pairs", "of others", "area under curve", "found at 1 % false", "weight"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["term"],
            str(row["pairs_same"]),
            str(row["pairs_other"]),
            f"{row['area']:.3f}",
            f"{100 * row['found']:.1f} %",
            f"{row['weight']:.3f}",
        )
    return table


def rule_table(rows: list[Row]) -> Table:
    """Table of joins by the strictness of the rule."""
    table = Table("evidence", title="joins by the rule", title_justify="left")
    for column in ("lead", "right", "wrong", "of nobody"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"{row['evidence']:g}",
            f"{row['lead']:g}",
            str(row["right"]),
            str(row["wrong"]),
            str(row["of_nobody"]),
        )
    return table


def look_table(rows: list[Row]) -> Table:
    """Table of how well looks tell people apart."""
    title = "one person or two: area under the curve, and found at 1 % false"
    table = Table("seconds", title=title, title_justify="left")
    for column in ("pairs", "of others", *KINDS):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row["gap_s"]),
            str(row["pairs_same"]),
            str(row["pairs_other"]),
            *(f"{row[f'area_{kind}']:.3f}, {100 * row[f'found_{kind}']:.0f} %" for kind in KINDS),
        )
    return table
