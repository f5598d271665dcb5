"""Measures detection in single pictures, of students and foreign detectors on the same pictures.

Validation stills and as many training stills are scored separately: a large gap between them asks
for more data, a small one for more training. Frames of sequences are treated as stills, except
that their boxes are of whole people.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from model.net.letterbox import Letterbox
from model.track.tracker import Tracker
from pipeline.benchmark.average_precision import PictureScores, picture_scores
from pipeline.benchmark.metrics import DISTRACTORS
from pipeline.datasets.boxes import PEDESTRIAN
from pipeline.datasets.mot import MotError
from pipeline.datasets.mot import Sequence as MotSequence
from pipeline.datasets.picture_boxes import Found, People
from pipeline.datasets.still_images import VAL, Still
from pipeline.degrade.conditions import Condition
from pipeline.storage.files import StorageError
from pipeline.trackers.detectors import Detector
from pipeline.trackers.sequence_frames import SequenceFrames
from pipeline.tracking.student_detections import (
    dense_detections,
    encode,
    prepare,
    student_detections,
)
from pipeline.video.errors import DecodeError
from pipeline.video.probe import ProbeError

SEQUENCES, APART = "sequences", "apart"
POOLED, MEAN = "ALL", "MEAN"
DETECTIONS, DENSE, FOREIGN = "detections", "dense head", "detector"
FOREIGN_FLOOR = 0.05
"""Least score of a foreign detector's detections; a student's detections all count."""
_BATCH = 16  # with fewer, PyTorch's convolutions on one thread are slow

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Picture:
    """One labelled picture.

    Attributes:
        split: "val" or "train" of a still, `SEQUENCES` or `APART` of a frame.
        source: data set of a still, name of a sequence.
        camera: if it is known, else "".
        people: ground truth.
        pixels: (H, W, 3) uint8 RGB.
    """

    split: str
    source: str
    camera: str
    people: People
    pixels: np.ndarray[Any, Any]


def still_pictures(stills: Iterable[Still], left_out: dict[str, str]) -> Iterator[Picture]:
    """Open stills one after the other; `left_out` gets the reason for each unreadable one."""
    for still in stills:
        try:
            with Image.open(still.path) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
            left_out[str(still.path)] = f"not a readable picture ({error})"
            continue
        people = People(still.xywh, still.ignored)
        yield Picture(still.split, still.source, still.camera, people, pixels)


def sequence_pictures(
    sequence: MotSequence, split: str, stride: int, left_out: dict[str, str]
) -> Iterator[Picture]:
    """Every `stride`-th frame of a sequence from its first, by the rule of MOT16/17.

    A problem of its video goes into `left_out`; frames before it are given.
    """
    try:
        shots = SequenceFrames(sequence, Condition(), None, canvases=(), native=True, cache="")
        for shot in islice(shots, 0, None, stride):
            assert shot.native is not None
            people = frame_people(sequence, shot.index)
            yield Picture(split, sequence.name, "", people, shot.native)
    except (MotError, ProbeError, DecodeError, StorageError) as error:
        left_out[sequence.name] = str(error)
        return
    if shots.problem:
        left_out[sequence.name] = shots.problem


def frame_people(sequence: MotSequence, index: int) -> People:
    """Ground truth of a frame, by its index in the sequence; distractors are ignored boxes."""
    gt = sequence.gt.at(index + 1)
    ignored = np.isin(gt.class_id, DISTRACTORS)
    kept = ignored | ((gt.class_id == PEDESTRIAN) & (gt.confidence != 0))
    return People(gt.xywh[kept], ignored[kept])


@dataclass(frozen=True, slots=True)
class Detections:
    """Detections of all students and detectors in all pictures, with the ground truth.

    Attributes:
        pictures: (split, source, camera) of each picture, in the order of detection.
        people: ground truth of each picture.
        scales: canvas pixels per pixel of each, vertically.
        found: of each picture, by (name, part).
    """

    pictures: list[tuple[str, str, str]]
    people: list[People]
    scales: list[float]
    found: dict[tuple[str, str], list[Found]]


def detect_all(
    pictures: Iterable[Picture],
    students: Mapping[str, Tracker],
    detectors: Mapping[str, Detector],
    device: str,
    advance: Callable[[int], None] = lambda count: None,
) -> Detections:
    """Run all students and detectors on pictures, which are held in memory a few at a time.

    Args:
        pictures: in any order.
        students: by name, in eval mode on `device`; sizes of people are those on the first one's
            canvas.
        detectors: by name.
        device: of the students.
        advance: called with the number of pictures done.
    """
    detections = Detections([], [], [], defaultdict(list))
    first = next(iter(students.values())).config
    waiting = iter(pictures)
    while batch := list(islice(waiting, _BATCH)):
        for picture in batch:
            detections.pictures.append((picture.split, picture.source, picture.camera))
            detections.people.append(picture.people)
            height, width = picture.pixels.shape[:2]
            box = Letterbox(height, width, first.input_height, first.input_width)
            detections.scales.append(box.scale[0])
        for name, tracker in students.items():
            prepared = [prepare(picture.pixels, tracker.config) for picture in batch]
            encoded = encode(tracker, prepared, device)
            whole = [picture.split in (SEQUENCES, APART) for picture in batch]
            detections.found[name, DETECTIONS] += student_detections(encoded, prepared, whole)
            detections.found[name, DENSE] += dense_detections(encoded, prepared)
        for name, detector in detectors.items():
            seen = [Found(*detector(picture.pixels)).above(FOREIGN_FLOOR) for picture in batch]
            detections.found[name, FOREIGN] += seen
        advance(len(batch))
    return detections


def detection_rows(detections: Detections, birth: Mapping[str, float]) -> list[Row]:
    """Scores by split and source, and of each split as a whole.

    Args:
        detections: from `detect_all`.
        birth: by name, the score that recall and precision are taken at.

    Returns:
        rows of each student and detector, by name: one for each source of each split; for stills
            one over all pictures of the split (source `ALL`); one mean (source `MEAN …`) over the
            sequences that are not apart; and, because pictures of one camera are alike, one mean
            over the cameras of each source of split val. A figure without a value is None.
    """
    groups = _groups(detections.pictures)
    rows = []
    for (name, part), found in detections.found.items():
        for (split, source), sets in groups.items():
            scores = [
                picture_scores(
                    [(detections.people[i], found[i], detections.scales[i]) for i in members],
                    birth[name],
                )
                for members in sets
            ]
            count = sum(map(len, sets))
            row = {"split": split, "source": source, "pictures": count, "name": name, "part": part}
            rows.append(row | {"score": birth[name]} | _mean(scores))
    return rows


def _groups(pictures: Sequence[tuple[str, str, str]]) -> dict[tuple[str, str], list[list[int]]]:
    """Sets of pictures by (split, source), as indices. A row is the mean over its sets."""
    splits: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    cameras: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, (split, source, camera) in enumerate(pictures):
        splits[split][source].append(index)
        if camera and split == VAL:
            cameras[source][camera].append(index)
    groups: dict[tuple[str, str], list[list[int]]] = {}
    for split, sources in splits.items():
        members = [sources[source] for source in sorted(sources)]
        groups |= {(split, source): [sources[source]] for source in sorted(sources)}
        if split == SEQUENCES:
            groups[split, MEAN] = members
        elif split != APART:
            groups[split, POOLED] = [[index for indices in members for index in indices]]
        if split == VAL:
            for source, each in sorted(cameras.items()):
                groups[split, f"{MEAN} of {len(each)} {source} cameras"] = list(each.values())
    return groups


def _mean(scores: Sequence[PictureScores]) -> Row:
    """Sums of people; means of each figure over the sets that have it, None if none has."""
    row: Row = {}
    for field in fields(PictureScores):
        values = [v for v in (getattr(s, field.name) for s in scores) if not math.isnan(v)]
        if field.name.startswith("people"):
            row[field.name] = sum(values)
        else:
            row[field.name] = sum(values) / len(values) if values else None
    return row
