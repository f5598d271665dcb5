"""Detections of students and detectors under each condition, each computed once.

A file holds the detections of one series (a student with one gate, or a detector) in all pictures
of one condition. Its name ends in a hash of all that they depend on. What is missing is computed
together, so that each picture is degraded once for all series.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from model.track.tracker import Tracker
from pipeline.benchmark.average_precision import COCO_IOUS, match_pictures
from pipeline.benchmark.cell_code import code_sha256, library_versions
from pipeline.benchmark.cells import cell_key
from pipeline.benchmark.degraded.bounds import Part, with_clean
from pipeline.benchmark.degraded.pictures import Picture, Shown, batches, show, shown_under
from pipeline.benchmark.detection_measure import FOREIGN_FLOOR
from pipeline.benchmark.weighted_precision import Matches
from pipeline.datasets.picture_boxes import Found
from pipeline.degrade.conditions import Condition
from pipeline.storage import files as storage
from pipeline.trackers.detectors import Detector
from pipeline.trackers.sequence_frames import ahead
from pipeline.trackers.spec import DETECTOR, STUDENT, TrackerSpec
from pipeline.trackers.variants import FULL, Variant, make_variants
from pipeline.tracking.student_detections import perceive, prepare, student_detections

_BATCH = 4  # larger ones take as long for a picture on one CPU thread, and more memory
_AHEAD = 4 * _BATCH  # pictures that are degraded ahead, in a thread of their own
_PICTURES = b"pictures"


@dataclass(frozen=True, slots=True)
class Series:
    """What is compared: a student with one gate, or a detector.

    Attributes:
        name: as in the tables, for example "student" or "student:gate_off".
        source: name of the student or detector.
        path: its file.
        sha256: of its file or files.
        variant: of a student, out of `variants.VARIANTS`; "" of a detector.
        clean: part of the percept that is taken from the clean picture; None takes none.
        clean_age: how many frames before its own the clean picture is. All series of a student
            that take a part have the same.
    """

    name: str
    source: str
    path: str
    sha256: str
    variant: str
    clean: Part | None = None
    clean_age: int = 0


@dataclass(frozen=True, slots=True)
class Models:
    """Students by name, in eval mode on `device`, and detectors by name."""

    students: Mapping[str, Tracker]
    detectors: Mapping[str, Detector]
    device: str


def detect_missing(
    output: str,
    pictures: Sequence[Picture],
    conditions: Sequence[Condition],
    series: Sequence[Series],
    models: Models,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[tuple[str, str], Matches]:
    """Detect what is not in `output` yet; return all matches by (series, condition).

    Args:
        output: folder or URL.
        pictures: frames of one sequence in their order, without others between them.
        conditions: of the pictures.
        series: of the models.
        models: of all series.
        advance: called with the number of pictures done.

    Raises:
        StillsError, MotError: a picture cannot be read any more.
        StorageError: the output, or a video, cannot be read or written.
    """
    matches = {}
    for condition in conditions:
        shown = shown_under(condition, pictures)
        files = {one: _uri(output, shown, condition, one, models.device) for one in series}
        missing = [one for one, uri in files.items() if not storage.exists(uri)]
        if missing:
            found = _detect(output, shown, condition, missing, models, advance)
            for one in missing:
                _write(files[one], shown, found[one.name])
        else:
            advance(len(shown))
        for one, uri in files.items():
            matches[one.name, condition.name] = _read(uri, shown)
    return matches


def _uri(
    output: str, shown: Sequence[Picture], condition: Condition, series: Series, device: str
) -> str:
    kind = STUDENT if series.variant else DETECTOR
    spec = TrackerSpec(series.source, kind, series.path, series.variant or FULL)
    digest = hashlib.sha256("".join(f"{p.name}{p.index}{p.sha256}" for p in shown).encode())
    key = cell_key(
        {
            "pictures": digest.hexdigest(),
            "condition": [condition.kind, condition.severity, condition.seed],
            "source": series.sha256,
            "variant": series.variant,
            "clean": [series.clean, series.clean_age] if series.clean_age else series.clean,
            "code": code_sha256(entry=__name__),
            "libraries": library_versions(spec),
            "device": device.partition(":")[0],
        }
    )
    shown_as = f"clean_{series.clean}" if series.clean else series.variant or DETECTOR
    name = f"{condition.name}--{shown_as}--{key}"
    return f"{output.rstrip('/')}/detections/{name}.parquet"


def _detect(
    output: str,
    shown: Sequence[Picture],
    condition: Condition,
    series: Sequence[Series],
    models: Models,
    advance: Callable[[int], None],
) -> dict[str, list[Found]]:
    """Detections of each series in the pictures, in their order."""
    nothing = Found(np.zeros((0, 4)), np.zeros(0))
    found = {one.name: [nothing] * len(shown) for one in series}
    by_source: dict[str, list[Series]] = defaultdict(list)
    for one in series:
        by_source[one.source].append(one)
    variants = {
        name: make_variants(tracker, [one.variant for one in by_source[name]], condition)
        for name, tracker in models.students.items()
        if name in by_source
    }
    configs = [models.students[name].config for name in variants]

    def canvases(picture: Picture) -> tuple[tuple[int, int], ...]:
        return tuple(config.canvas_for(picture.height, picture.width) for config in configs)

    age = max(one.clean_age for one in series)
    clips = ahead(show(shown, condition, f"{output.rstrip('/')}/videos", age), _AHEAD)
    for batch in batches(clips, canvases, _BATCH):
        for source, of in by_source.items():
            if source in variants:
                asked = [(v, one.clean) for v, one in zip(variants[source], of, strict=True)]
                results = _of_student(models, source, asked, batch)
            else:
                results = [[_of_detector(models.detectors[source], shot) for shot in batch]]
            for one, result in zip(of, results, strict=True):
                for shot, seen in zip(batch, result, strict=True):
                    found[one.name][shot.place] = seen
        advance(len(batch))
    return found


@torch.inference_mode()
def _of_student(
    models: Models,
    name: str,
    asked: Sequence[tuple[Variant, Part | None]],
    batch: Sequence[Shown],
) -> list[list[Found]]:
    """Detections of a student in pictures of one canvas.

    Args:
        models: of the measure.
        name: of the student.
        asked: its variants, each with the part that it is given from the clean pictures.
        batch: the pictures.
    """
    tracker = models.students[name]
    first = batch[0].picture
    canvas = tracker.config.canvas_for(first.height, first.width)
    prepared = [prepare(shot.pixels, tracker.config, canvas) for shot in batch]
    percept = perceive(tracker, prepared, models.device)
    clean = None
    if any(part for _, part in asked):
        originals = [prepare(shot.clean, tracker.config, canvas) for shot in batch]
        clean = perceive(tracker, originals, models.device)
    whole = [shot.picture.whole for shot in batch]
    results = []
    for variant, part in asked:
        given = percept
        if part and clean is not None:
            given = with_clean(percept, clean, part)
        if variant.quality is not None:
            each = [variant.quality(shot.picture.name, shot.picture.index, 1) for shot in batch]
            quality = torch.from_numpy(np.array(each, np.float32)[:, 0])
            given = replace(given, quality=quality.to(percept.quality))
        results.append(student_detections(variant.tracker.detect(given), prepared, whole))
    return results


def _of_detector(detector: Detector, shot: Shown) -> Found:
    return Found(*detector(shot.pixels)).above(FOREIGN_FLOOR)


def _write(uri: str, shown: Sequence[Picture], found: Sequence[Found]) -> None:
    """Publish detections with their matches; T overlaps are the bits of a number."""
    matched = match_pictures([(p.people, f) for p, f in zip(shown, found, strict=True)])
    counts = [len(one.scores) for one in matched]
    bits = 1 << np.arange(len(COCO_IOUS))
    xywh = np.concatenate([one.xywh for one in matched])
    columns: dict[str, Any] = {
        "picture": np.repeat(np.arange(len(shown), dtype=np.int32), counts),
        "score": np.concatenate([one.scores for one in matched]),
        "right": np.concatenate([one.right @ bits for one in matched]).astype(np.uint16),
        "ignored": np.concatenate([one.ignored @ bits for one in matched]).astype(np.uint16),
    } | {side: xywh[:, i].astype(np.float32) for i, side in enumerate("xywh")}
    names = json.dumps([[p.source, p.name, p.index] for p in shown]).encode()
    table = pa.table(columns).replace_schema_metadata({_PICTURES: names})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    storage.create_if_absent(uri, sink.getvalue().to_pybytes())


def _read(uri: str, shown: Sequence[Picture]) -> Matches:
    columns = ["picture", "score", "right", "ignored"]
    table = pq.read_table(pa.BufferReader(storage.read_bytes(uri)), columns=columns)
    bits = 1 << np.arange(len(COCO_IOUS))
    picture, score, right, ignored = (table[name].to_numpy() for name in columns)
    return Matches(
        np.array([int((~p.people.ignored).sum()) for p in shown], int),
        picture,
        score,
        (right[:, None] & bits) > 0,
        (ignored[:, None] & bits) > 0,
    )
