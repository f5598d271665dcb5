"""`vsdmot measure degraded`: AP50 of students under degradations, and whether they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jobs.cli import EXIT_DONE, EXIT_FAILED, console
from jobs.measure_detection import Student, open_detectors, open_students, read_sequences
from jobs.measure_settings import MeasureConfig
from model.track.checkpoint import file_sha256
from model.version import code_version
from pipeline.benchmark.degraded.detect import Models, Series, detect_missing
from pipeline.benchmark.degraded.pictures import (
    APART,
    POOR,
    SEQUENCES,
    STILLS,
    Picture,
    shown_under,
    survey_sequence,
    survey_stills,
)
from pipeline.benchmark.degraded.rows import DEGRADED, POWER, RESAMPLES, Row, score_rows
from pipeline.benchmark.detection_measure import MEAN, POOLED
from pipeline.benchmark.measure import write_rows
from pipeline.benchmark.plan import source_sha256
from pipeline.datasets.still_images import VAL, Still, StillsError, read_stills, spread
from pipeline.degrade.conditions import CLEAN, Condition, conditions
from pipeline.trackers.spec import DETECTOR, SpecError
from pipeline.trackers.variants import FULL

_STRIDE = 10  # frames
_LEARNED = "learned"
# Seconds for a picture on one CPU thread.
_PICTURE_S, _STUDENT_S, _GATE_S, _DETECTOR_S = 0.02, 0.1, 0.04, 0.03


def run_robustness(config: MeasureConfig) -> int:
    """Measure, print, write `degraded.parquet` and `degraded.json`; returns the exit code.

    Raises:
        CheckpointError, DetectorError, SpecError: a student or a detector cannot be used.
        StillsError, MotError: there are no pictures.
        StorageError: the output cannot be read or written.
    """
    students = open_students(config)
    files, detectors = open_detectors(config, students)
    series = _series(config, students, files)
    control = config.control or series[0].name
    names = [one.name for one in series]
    if control not in names:
        raise SpecError(f"control={control}: is not measured; known are {', '.join(names)}")
    left_out: dict[str, str] = {}
    with console.status("reading pictures"):
        pictures = _pictures(config, left_out)
    for name, reason in left_out.items():
        console.print(f"[yellow]left out:[/] {escape(name)}: {escape(reason)}", soft_wrap=True)
    if not pictures:
        raise StillsError(
            f"stills={config.stills}, data={config.data}: no picture could be read; give others"
        )
    shown = conditions(config.kinds, config.severities, [0])
    count = sum(len(shown_under(condition, pictures)) for condition in shown)
    each = _PICTURE_S + len(students) * _STUDENT_S + len(detectors) * _DETECTOR_S
    each += len(students) * (len(config.gates) + len(config.clean)) * _GATE_S
    each += len(students) * _STUDENT_S if config.clean else 0
    console.print(
        f"pictures: {len(pictures)}, {count} with the degraded ones; on one idle CPU thread at "
        f"most {max(1, round(count * each / 60))} min, less what is there already",
        highlight=False,
    )
    trackers = {name: student.tracker for name, student in students.items()}
    rows = _rows(
        config, pictures, shown, series, control, Models(trackers, detectors, config.device)
    )
    console.print(score_table(rows))
    if len(names) > 1:
        console.print(difference_table(rows, control))
    record = {
        "config": asdict(config),
        "control": control,
        "sha256": {one.source: one.sha256 for one in series},
        "stills_sha256": file_sha256(config.stills) if config.stills else None,
        "pictures": {place: _count(pictures, place) for place in (STILLS, SEQUENCES, POOR, APART)},
        "resamples": RESAMPLES,
        "code_version": code_version(),
        "left_out": left_out,
    }
    written = write_rows(config.output, config.what, rows, record)
    console.print(f"written to {written}", soft_wrap=True, highlight=False)
    return EXIT_FAILED if left_out else EXIT_DONE


def _rows(
    config: MeasureConfig,
    pictures: Sequence[Picture],
    shown: Sequence[Condition],
    series: Sequence[Series],
    control: str,
    models: Models,
) -> list[Row]:
    names = [one.name for one in series]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        total = sum(len(shown_under(condition, pictures)) for condition in shown)
        task = progress.add_task("pictures", total=total)
        matches = detect_missing(
            config.output,
            pictures,
            shown,
            series,
            models,
            lambda count: progress.advance(task, count),
        )
        scoring = progress.add_task("scores", total=len(shown) * len(names))
        return score_rows(
            pictures, shown, names, control, matches, lambda: progress.advance(scoring)
        )


def _series(
    config: MeasureConfig, students: Mapping[str, Student], files: Mapping[str, str]
) -> list[Series]:
    series = []
    suffix = f"_{config.clean_age}_before" if config.clean_age else ""
    for name, student in students.items():
        sha256 = file_sha256(student.path)
        for gate in dict.fromkeys(config.gates):
            own = gate == _LEARNED
            shown, variant = (name, FULL) if own else (f"{name}:{gate}", f"gate_{gate}")
            series.append(Series(shown, name, student.path, sha256, variant))
        for part in dict.fromkeys(config.clean):
            shown = f"{name}:clean_{part}{suffix}"
            series.append(Series(shown, name, student.path, sha256, FULL, part, config.clean_age))
    for name, path in files.items():
        series.append(Series(name, name, path, source_sha256(DETECTOR, path, ""), ""))
    return series


def _pictures(config: MeasureConfig, left_out: dict[str, str]) -> list[Picture]:
    """Pictures of all groups, those that are also shown degraded first."""
    if not (config.stills or config.data):
        raise StillsError("stills and data are both empty; give stills=…/annotations.json")
    if config.clean_age and not config.clean:
        raise StillsError(
            f"clean_age={config.clean_age}: is the age of what clean= takes from the clean "
            "picture, and that is empty; give clean=[semantics], or leave clean_age out"
        )
    if config.clean_age and config.stills:
        raise StillsError(
            f"clean_age={config.clean_age}: a still has no frames before it; give stills= (empty)"
        )
    good, poor = _stills(config) if config.stills else ([], [])
    stride = config.stride or _STRIDE
    frames: dict[str, list[Picture]] = {SEQUENCES: [], APART: []}
    for sequence in read_sequences(config):
        group = APART if sequence.name in config.apart else SEQUENCES
        frames[group] += survey_sequence(group, sequence, stride, left_out)
    found = [*survey_stills(STILLS, good, left_out), *frames[SEQUENCES]]
    return [*found, *survey_stills(POOR, poor, left_out), *frames[APART]]


def _stills(config: MeasureConfig) -> tuple[list[Still], list[Still]]:
    """Stills to degrade, and stills that are poor already."""
    every = read_stills(config.stills)
    tested = {still.source for still in every if still.split == VAL}
    good = [s for s in every if s.split == VAL and s.source not in config.poor]
    poor = [s for s in every if s.source in config.poor]
    poor = [s for s in poor if s.split == VAL or s.source not in tested]
    if config.pictures is not None:
        good, poor = (spread(stills, config.pictures) for stills in (good, poor))
    return good, poor


def _count(pictures: Sequence[Picture], group: str) -> int:
    return sum(picture.group == group for picture in pictures)


def score_table(rows: Sequence[Row]) -> Table:
    """Table of AP50 and AP by group and condition, and of poor footage by source."""
    names = list(dict.fromkeys(row["name"] for row in rows))
    table = Table(title="AP50 / AP, percent", title_justify="left", pad_edge=False)
    for heading in ("pictures", "condition"):
        table.add_column(heading, no_wrap=True)
    for name in names:
        table.add_column(escape(name), justify="right", no_wrap=True)
    found = {_key(row): row for row in rows}
    last = None
    for place in dict.fromkeys(key[1:] for key in found):
        group, source, kind, severity = place
        whole = source in (POOLED, MEAN)
        if not whole and kind not in (CLEAN, DEGRADED):
            continue
        entries = [found[name, *place] for name in names]
        if (group, source) != last and last is not None:
            table.add_section()
        count = entries[0]["pictures"]
        label = f"{group}: {source} ({count})" if (group, source) != last else ""
        values = [f"{_text(row['ap50'])} / {_text(row['ap'])}" for row in entries]
        style = "bold" if whole and kind == DEGRADED else ""
        table.add_row(label, _condition(kind, severity), *values, style=style)
        last = group, source
    return table


def difference_table(rows: Sequence[Row], control: str) -> Table:
    """Table of differences in AP50 to the control, with intervals."""
    title = (
        f"AP50 less that of {escape(control)} (its 95 % interval over pictures of stills, or over "
        "sequences),\nthen the smallest difference that would be seen with a power of 80 %: "
        f"{POWER} standard errors"
    )
    table = Table(title=title, title_justify="left", pad_edge=False)
    for heading in ("pictures", "condition"):
        table.add_column(heading, no_wrap=True)
    names = [name for name in dict.fromkeys(row["name"] for row in rows) if name != control]
    for name in names:
        table.add_column(escape(name), justify="right", no_wrap=True)
    found = {_key(row): row for row in rows if row["kind"] in (CLEAN, DEGRADED)}
    last = None
    for place in dict.fromkeys(key[1:] for key in found):
        group, source, kind, severity = place
        if (group, source) != last and last is not None:
            table.add_section()
        label = f"{group}: {source}" if (group, source) != last else ""
        values = [_difference(found[name, *place]) for name in names]
        table.add_row(label, _condition(kind, severity), *values)
        last = group, source
    return table


def _key(row: Row) -> tuple[Any, ...]:
    return row["name"], row["group"], row["source"], row["kind"], row["severity"]


def _condition(kind: str, severity: int) -> str:
    if kind != DEGRADED:
        return f"{kind} {severity}" if severity else kind
    return f"mean at {severity}" if severity else "mean"


def _difference(row: Row) -> str:
    if row["low"] is None:
        return "–" if row["difference"] is None else f"{row['difference']:+.1f}"  # noqa: RUF001
    low, high, smallest = row["low"], row["high"], row["smallest"]
    text = f"{row['difference']:+.1f} ({low:+.1f} {high:+.1f}) {smallest:.1f}"
    if low > 0 or high < 0:
        return f"[{'green' if low > 0 else 'red'}]{text}[/]"
    return text


def _text(value: Any) -> str:
    return "–" if value is None else f"{value:.1f}"  # noqa: RUF001
