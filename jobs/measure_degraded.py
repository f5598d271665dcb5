"""`vsdmot measure semantics` and `vsdmot measure quality`: a student on degraded sequences."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jobs.cli import EXIT_DONE, EXIT_FAILED, console
from jobs.measure_settings import FRAMES, MeasureConfig
from model.teach.config import TeacherConfig
from model.teach.distillation import Distiller, distiller_path, load_distiller
from model.teach.teacher import Teacher, TeacherError
from model.track.checkpoint import CheckpointError, file_sha256
from model.track.tracker import Tracker
from model.version import code_version
from pipeline.benchmark.measure import (
    CLEAN,
    OVERALL,
    Row,
    Run,
    frame_runs,
    quality_rows,
    semantic_rows,
    write_rows,
)
from pipeline.datasets.mot import MotError, find_sequences, read_sequence
from pipeline.degrade.kinds import SEVERITIES
from pipeline.storage.files import StorageError, list_videos
from pipeline.teachers.load import load_teacher
from pipeline.video.errors import DecodeError
from pipeline.video.probe import ProbeError, probe


def run_degraded(config: MeasureConfig) -> int:
    """Measure, print, write `<what>.parquet` and `<what>.json`; returns the exit code.

    Raises:
        CheckpointError, TeacherError: the student, its projectors or the teacher cannot be used.
        MotError: there is no sequence.
        StorageError: the output cannot be written.
    """
    tracker, _ = Tracker.load(config.weights, config.device)
    pair = None
    if config.what == "semantics":
        pair = _pair(config, tracker)
    runs, left_out = _read(config)
    cell_count = len(runs) * (1 + len(config.kinds) * len(SEVERITIES))
    columns = (TextColumn("cells"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("cells", total=cell_count)
        more: dict[str, Any] = {
            "runs": runs,
            "device": config.device,
            "kinds": config.kinds,
            "advance": lambda: progress.advance(task),
        }
        rows = semantic_rows(tracker, *pair, **more) if pair else quality_rows(tracker, **more)
    console.print(quality_table(rows) if pair is None else semantic_table(rows))
    record = {
        "config": asdict(config),
        "weights_sha256": file_sha256(config.weights),
        "teacher": asdict(pair[1].info) if pair else None,
        "input": [tracker.config.input_height, tracker.config.input_width],
        "code_version": code_version(),
        "left_out": left_out,
    }
    written = write_rows(config.output, config.what, rows, record)
    frames = sum(len(r.pixels) for r in runs)
    console.print(f"{frames} frames; written to {written}", soft_wrap=True, highlight=False)
    return EXIT_FAILED if left_out else EXIT_DONE


def _pair(config: MeasureConfig, tracker: Tracker) -> tuple[Distiller, Teacher]:
    path = distiller_path(config.weights)
    distiller = load_distiller(path).to(config.device)
    if distiller.semantic_dim != (semantic_dim := tracker.config.semantic_dim):
        raise CheckpointError(
            f"{path}: the projectors take {distiller.semantic_dim} channels, but the student has "
            f"{semantic_dim}; give the projectors of these weights"
        )
    chosen = TeacherConfig(config.teacher, config.pretrained)
    teacher = load_teacher(chosen, config.device, student=tracker)
    if teacher.info != distiller.teacher:
        raise TeacherError(
            f"{path}: the teacher was {distiller.teacher.id}, not {teacher.info.id}; give it with "
            "teacher=… pretrained=…"
        )
    return distiller, teacher


def _read(config: MeasureConfig) -> tuple[list[Run], dict[str, str]]:
    if not (config.data and Path(config.data).is_dir()):
        raise MotError(f"data={config.data}: no such folder; give sequences in MOTChallenge layout")
    runs: list[Run] = []
    left_out = {}
    for sequence in map(read_sequence, find_sequences(config.data)):
        if sequence.name in config.apart:
            continue
        try:
            info = probe(next(list_videos(str(sequence.video))))
            runs += frame_runs(sequence.name, info, config.frames or FRAMES)
        except (ProbeError, DecodeError, StorageError, StopIteration) as error:
            left_out[sequence.name] = str(error) or "has no video file"
    for name, reason in left_out.items():
        console.print(f"[yellow]left out:[/] {name}: {reason}", soft_wrap=True, highlight=False)
    if not runs:
        raise MotError(f"data={config.data}: no sequence could be read; the reasons are above")
    return runs, left_out


def semantic_table(rows: Sequence[Row]) -> Table:
    """Table of cosines over all sequences, `student / teacher` by kind and severity."""
    title = "cosine to the teacher on the clean frame; student / teacher on the degraded frame"
    table = Table("kind", "", title=title, title_justify="left", pad_edge=False)
    for severity in (0, *SEVERITIES):
        table.add_column(str(severity), justify="right", no_wrap=True)
    found = {(r["kind"], r["severity"]): r for r in rows if r["sequence"] == OVERALL}
    for kind in dict.fromkeys(kind for kind, _ in found if kind != CLEAN):
        for space in ("dense", "pooled"):
            cells = []
            for severity in (0, *SEVERITIES):
                row = found[(kind, severity) if severity else (CLEAN, 0)]
                mine, theirs = row[f"student_{space}"], row[f"teacher_{space}"]
                text = f"{mine:.3f} / {theirs:.3f}"
                cells.append(f"[green]{text}[/]" if mine > theirs else text)
            table.add_row(kind if space == "dense" else "", space, *cells)
    return table


def quality_table(rows: Sequence[Row]) -> Table:
    """Table of rank correlations by sequence and kind."""
    found = {(r["sequence"], r["kind"]): r["correlation"] for r in rows}
    kinds = dict.fromkeys(kind for _, kind in found)
    table = Table("sequence", title="rank correlation of 1 - quality with severity", pad_edge=False)
    for kind in kinds:
        table.add_column(kind.replace("_", " "), justify="right")
    for sequence in dict.fromkeys(name for name, _ in found):
        values: list[Any] = [found[sequence, kind] for kind in kinds]
        style = "bold" if sequence == OVERALL else ""
        shown = ["–" if v is None else f"{v:.2f}" for v in values]  # noqa: RUF001
        table.add_row(sequence, *shown, style=style)
    return table
