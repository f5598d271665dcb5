"""`vsdmot measure detection`: AP and recall in single pictures, by source, size and split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from jobs.cli import EXIT_DONE, EXIT_FAILED, console
from jobs.measure_settings import MeasureConfig
from model.track.checkpoint import CheckpointError, CheckpointMetadata, file_sha256
from model.track.tracker import Tracker
from model.version import code_version
from pipeline.benchmark.average_precision import SIZES
from pipeline.benchmark.detection_measure import (
    APART,
    DENSE,
    FOREIGN_FLOOR,
    MEAN,
    POOLED,
    SEQUENCES,
    Picture,
    Row,
    detect_all,
    detection_rows,
    sequence_pictures,
    still_pictures,
)
from pipeline.benchmark.measure import write_rows
from pipeline.datasets.mot import MotError, find_sequences, read_sequence
from pipeline.datasets.mot import Sequence as MotSequence
from pipeline.datasets.still_images import TRAIN, VAL, Still, StillsError, read_stills, spread
from pipeline.trackers.detectors import Detector, detector_files, open_detector
from pipeline.trackers.spec import SpecError, pairs

FIRST = "student"
"""The name of the student that `weights` gives."""

_STRIDE = 4  # frames
_FIGURES = ("ap50", "ap", "overlap")

# Measured on one CPU thread; a student's picture has 384 by 640 pixels.
_STUDENT_S, _DETECTOR_S, _READ_S = 0.1, 0.03, 0.01
_STUDENT_PIXELS = 384 * 640


@dataclass(frozen=True, slots=True)
class Student:
    """A student, the path of its weights, and the number of its training frames, if known."""

    path: str
    tracker: Tracker
    frames: int | None


@dataclass(frozen=True, slots=True)
class Data:
    """Pictures to measure on: stills, sequences, and the reasons of what is left out, by name."""

    stills: list[Still]
    sequences: list[MotSequence]
    left_out: dict[str, str]


def run_detection(config: MeasureConfig) -> int:
    """Measure, print, write `detection.parquet` and `detection.json`; returns the exit code.

    Raises:
        CheckpointError, DetectorError, SpecError: a student or a detector cannot be used.
        StillsError, MotError: there are no pictures, or no stills of split `val`.
        StorageError: the output cannot be written.
    """
    data = _read(config)
    students = open_students(config)
    if config.canvas is not None:
        for student in students.values():
            student.tracker.config = student.tracker.config.with_input(*config.canvas)
    files, detectors = open_detectors(config, students)
    total = len(data.stills) + sum(-(-s.length // _stride(config)) for s in data.sequences)
    each = _READ_S + _DETECTOR_S * len(detectors) + sum(map(_student_seconds, students.values()))
    console.print(
        f"pictures: {total}, students: {len(students)}, detectors: {len(detectors)}; on one idle "
        f"CPU thread about {max(1, round(total * each / 60))} min",
        highlight=False,
    )
    rows = _rows(config, data, students, detectors, total)
    frames = {name: student.frames for name, student in students.items()}
    for row in rows:
        row["frames_trained"] = frames.get(row["name"])
    for table in (source_table(rows), summary_table(rows)):
        console.print(table)
    for name, reason in data.left_out.items():
        console.print(f"[yellow]left out:[/] {escape(name)}: {escape(reason)}", soft_wrap=True)
    if data.left_out:
        console.print(f"[yellow]{len(data.left_out)} left out[/]", highlight=False)
    record = {
        "config": asdict(config),
        "weights_sha256": {name: file_sha256(s.path) for name, s in students.items()},
        "detectors_sha256": {
            name: {file.name: file_sha256(file) for file in detector_files(path)}
            for name, path in files.items()
        },
        "stills_sha256": file_sha256(config.stills) if config.stills else None,
        "canvas": list(_canvas(students[FIRST].tracker)),
        "code_version": code_version(),
        "left_out": data.left_out,
    }
    written = write_rows(config.output, config.what, rows, record)
    console.print(f"written to {written}", soft_wrap=True, highlight=False)
    return EXIT_FAILED if data.left_out else EXIT_DONE


def _rows(
    config: MeasureConfig,
    data: Data,
    students: Mapping[str, Student],
    detectors: Mapping[str, Detector],
    total: int,
) -> list[Row]:
    trackers = {name: student.tracker for name, student in students.items()}
    columns = (TextColumn("pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("pictures", total=total)
        detections = detect_all(
            _pictures(config, data),
            trackers,
            detectors,
            config.device,
            lambda count: progress.advance(task, count),
        )
    if not detections.pictures:
        raise StillsError(
            f"stills={config.stills}, data={config.data}: no picture could be read; give others"
        )
    birth = {name: tracker.config.birth_threshold for name, tracker in trackers.items()}
    with console.status("scoring"):
        return detection_rows(detections, dict.fromkeys(detectors, birth[FIRST]) | birth)


def _pictures(config: MeasureConfig, data: Data) -> Iterator[Picture]:
    yield from still_pictures(data.stills, data.left_out)
    for sequence in data.sequences:
        split = APART if sequence.name in config.apart else SEQUENCES
        yield from sequence_pictures(sequence, split, _stride(config), data.left_out)


def _stride(config: MeasureConfig) -> int:
    return config.stride or _STRIDE


def _read(config: MeasureConfig) -> Data:
    if not (config.stills or config.data):
        raise StillsError("stills and data are both empty; give stills=…/annotations.json")
    stills: list[Still] = []
    if config.stills:
        every = read_stills(config.stills)
        stills = [still for still in every if still.split == VAL]
        if not stills:
            raise StillsError(
                f"stills={config.stills}: has no stills of split val; give the field "
                '"split": "val" to images that are never trained on'
            )
        count = len(stills) if config.pictures is None else config.pictures
        stills += spread([still for still in every if still.split == TRAIN], count)
    # Sequences that are apart come last, so that the table has each group together.
    sequences = sorted(read_sequences(config), key=lambda sequence: sequence.name in config.apart)
    return Data(stills, sequences, {})


def read_sequences(config: MeasureConfig) -> list[MotSequence]:
    """Sequences of the settings, none if `data` is empty.

    Raises:
        MotError: there is no such folder, or a sequence cannot be read.
    """
    if not config.data:
        return []
    if not Path(config.data).is_dir():
        raise MotError(
            f"data={config.data}: no such folder; give sequences in MOTChallenge layout, "
            'or data="" for stills alone'
        )
    return [read_sequence(folder) for folder in find_sequences(config.data)]


def open_students(config: MeasureConfig) -> dict[str, Student]:
    """Students of the settings, by name.

    Raises:
        CheckpointError: one cannot be loaded.
        SpecError: an entry of `students` is wrong.
    """
    more = pairs(config.students, "students")
    if FIRST in more:
        raise SpecError(
            f"students: {FIRST!r} is the name of weights=; give the student another name"
        )
    return {
        name: _student(path, config.device)
        for name, path in {FIRST: config.weights, **more}.items()
    }


def open_detectors(
    config: MeasureConfig, students: Mapping[str, Student]
) -> tuple[dict[str, str], dict[str, Detector]]:
    """Files of the settings' detectors, and the detectors, by name.

    Raises:
        DetectorError: one cannot be opened.
        SpecError: an entry of `detectors` is wrong.
    """
    files = pairs(config.detectors, "detectors")
    if both := sorted(set(files) & set(students)):
        raise SpecError(
            f"detectors: {both[0]!r} is the name of a student; give the detector another name"
        )
    return files, {name: open_detector(path) for name, path in files.items()}


def _student(path: str, device: str) -> Student:
    tracker, metadata = Tracker.load(path, device)
    return Student(path, tracker, _frames_trained(path, metadata))


def _frames_trained(path: str, metadata: CheckpointMetadata) -> int | None:
    frames = metadata.training.get("frames")
    if frames is not None and not isinstance(frames, int):
        raise CheckpointError(f"{path}: training.frames is {frames!r}; expected a number or none")
    return frames


def _canvas(tracker: Tracker) -> tuple[int, int]:
    return tracker.config.input_height, tracker.config.input_width


def _student_seconds(student: Student) -> float:
    height, width = _canvas(student.tracker)
    return _STUDENT_S * height * width / _STUDENT_PIXELS


def source_table(rows: Sequence[Row]) -> Table:
    """Table of AP50, AP and overlap by source; results of the dense heads come last."""
    names = list(dict.fromkeys(row["name"] for row in rows))
    trained = {row["name"]: row["frames_trained"] for row in rows}
    found = {(r["split"], r["source"], r["part"] == DENSE, r["name"]): r for r in rows}
    title = (
        "AP50 / AP (COCO, 0.50 to 0.95) / median overlap of people found at the birth score, "
        "percent\nbelow a student's name its training frames"
    )
    table = Table("", "source", title=title, title_justify="left", pad_edge=False)
    for heading in ("pictures", "people"):
        table.add_column(heading, justify="right")
    for name in names:
        frames = trained[name]
        heading = escape(name) if frames is None else f"{escape(name)}\n{frames:,}"
        table.add_column(heading, justify="right", no_wrap=True)
    places = list(dict.fromkeys((row["split"], row["source"]) for row in rows))
    last = None
    for dense in (False, True):
        for split, source in places:
            entries = [found.get((split, source, dense, name)) for name in names]
            known = next(entry for entry in entries if entry)
            group = f"{split}, {DENSE}" if dense else split
            if group != last and last is not None:
                table.add_section()
            table.add_row(
                group if group != last else "",
                source,
                str(known["pictures"]),
                str(known["people"]),
                *(" / ".join(_text(e[k]) for k in _FIGURES) if e else "" for e in entries),
                style="bold" if source.startswith((POOLED, MEAN)) else "",
            )
            last = group
    return table


def summary_table(rows: Sequence[Row]) -> Table:
    """Table by split: AP50 by size, and recall and precision at the birth threshold."""
    bands = {"small": "under 32", "medium": "32 to 96", "large": "over 96"}
    title = (
        "AP50 by height on the student's canvas in pixels (people in brackets); recall and "
        f"precision at the student's birth score\nforeign detections under {FOREIGN_FLOOR} are "
        "dropped"
    )
    table = Table("split", "who", title=title, title_justify="left", pad_edge=False)
    for heading in (*(bands[name] for name in SIZES), "recall", "precision", "at score"):
        table.add_column(heading, justify="right", no_wrap=True)
    whole = [row for row in rows if row["source"] in (POOLED, MEAN) or row["split"] == APART]
    last = None
    for place in dict.fromkeys((row["split"], row["source"]) for row in whole):
        if last is not None:
            table.add_section()
        for row in whole:
            if (row["split"], row["source"]) != place:
                continue
            split, source = place
            label = f"{split}: {source}" if split == APART else split
            who = f"{row['name']}, {DENSE}" if row["part"] == DENSE else row["name"]
            sizes = [f"{_text(row[f'ap50_{n}'])} ({row[f'people_{n}']})" for n in SIZES]
            table.add_row(
                label if place != last else "",
                who,
                *sizes,
                _text(row["recall"]),
                _text(row["precision"]),
                f"{row['score']:g}",
            )
            last = place
    return table


def _text(value: Any) -> str:
    return "–" if value is None else f"{value:.1f}"  # noqa: RUF001
