"""How well people are found in single pictures: students and foreign detectors on the same ones.

Validation stills and as many of the training half stand apart, as the gap between the two says
what is missing: data, or training. Frames of sequences are looked at as if they were stills, but
for their boxes, which are of whole people.
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
    decoder_detections,
    dense_detections,
    encode,
    prepare,
)
from pipeline.video.decode import DecodeError
from pipeline.video.probe import ProbeError

SEQUENCES, APART = "sequences", "apart"
POOLED, MEAN = "ALL", "MEAN"
DECODER, DENSE, FOREIGN = "decoder", "dense head", "detector"
FOREIGN_FLOOR = 0.05
"""Score from which a foreign detector's detections count; a student's all do."""
_BATCH = 16  # PyTorch's convolutions on one thread are slow below

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture to look at.

    Attributes:
        split: "val" or "train" of a still, `SEQUENCES` or `APART` of a frame.
        source: data set of a still, name of a sequence.
        camera: where it is known, else "".
        people: who is in it.
        pixels: (H, W, 3) uint8 RGB.
    """

    split: str
    source: str
    camera: str
    people: People
    pixels: np.ndarray[Any, Any]


def still_pictures(stills: Iterable[Still], left_out: dict[str, str]) -> Iterator[Picture]:
    """Open stills one after the other; one that cannot be read gets its reason in `left_out`."""
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

    What is wrong with its video goes into `left_out`; frames before that are given.
    """
    try:
        shots = SequenceFrames(sequence, Condition(), None, canvases=(), native=True, cache="")
        for shot in islice(shots, 0, None, stride):
            gt = sequence.gt.at(shot.index + 1)
            ignored = np.isin(gt.class_id, DISTRACTORS)
            kept = ignored | ((gt.class_id == PEDESTRIAN) & (gt.confidence != 0))
            assert shot.native is not None
            people = People(gt.xywh[kept], ignored[kept])
            yield Picture(split, sequence.name, "", people, shot.native)
    except (MotError, ProbeError, DecodeError, StorageError) as error:
        left_out[sequence.name] = str(error)
        return
    if shots.problem:
        left_out[sequence.name] = shots.problem


@dataclass(frozen=True, slots=True)
class Looked:
    """All detections of all who looked, and what they are held against.

    Attributes:
        pictures: (split, source, camera) of each picture, in the order they were looked at.
        people: of each picture.
        scales: canvas pixels per pixel of each, vertically.
        found: by (name, part), of each picture.
    """

    pictures: list[tuple[str, str, str]]
    people: list[People]
    scales: list[float]
    found: dict[tuple[str, str], list[Found]]


def look(
    pictures: Iterable[Picture],
    students: Mapping[str, Tracker],
    detectors: Mapping[str, Detector],
    device: str,
    advance: Callable[[int], None] = lambda count: None,
) -> Looked:
    """Let everybody look at the pictures, which are held in memory a few at a time.

    Args:
        pictures: in any order.
        students: by name, in eval mode on `device`; sizes of people are those on the first one's
            canvas.
        detectors: by name.
        device: of the students.
        advance: called with the number of pictures done.
    """
    looked = Looked([], [], [], defaultdict(list))
    first = next(iter(students.values())).config
    waiting = iter(pictures)
    while batch := list(islice(waiting, _BATCH)):
        for picture in batch:
            looked.pictures.append((picture.split, picture.source, picture.camera))
            looked.people.append(picture.people)
            height, width = picture.pixels.shape[:2]
            box = Letterbox(height, width, first.input_height, first.input_width)
            looked.scales.append(box.scale[0])
        for name, tracker in students.items():
            prepared = [prepare(picture.pixels, tracker.config) for picture in batch]
            memory = encode(tracker, prepared, device)
            whole = [picture.split in (SEQUENCES, APART) for picture in batch]
            looked.found[name, DECODER] += decoder_detections(memory, prepared, whole)
            looked.found[name, DENSE] += dense_detections(memory, prepared)
        for name, detector in detectors.items():
            seen = [Found(*detector(picture.pixels)).above(FOREIGN_FLOOR) for picture in batch]
            looked.found[name, FOREIGN] += seen
        advance(len(batch))
    return looked


def detection_rows(looked: Looked, birth: Mapping[str, float]) -> list[Row]:
    """Scores by split and source, and of each split as a whole.

    Args:
        looked: what `look` returned.
        birth: by name, the score that recall and precision are taken at.

    Returns:
        for everybody who looked, a row for each source of each split, by name; for stills one over
            all pictures of the split (source `ALL`); means (source `MEAN …`) over the sequences
            that are not apart, and, as pictures of one camera are alike, over the cameras of each
            source of split val. Figures that do not exist are None.
    """
    groups = _groups(looked.pictures)
    rows = []
    for (name, part), found in looked.found.items():
        for (split, source), sets in groups.items():
            scores = [
                picture_scores(
                    [(looked.people[i], found[i], looked.scales[i]) for i in members], birth[name]
                )
                for members in sets
            ]
            count = sum(map(len, sets))
            row = {"split": split, "source": source, "pictures": count, "name": name, "part": part}
            rows.append(row | {"score": birth[name]} | _mean(scores))
    return rows


def _groups(pictures: Sequence[tuple[str, str, str]]) -> dict[tuple[str, str], list[list[int]]]:
    """What each row is of, by (split, source): pictures by index, in sets to be averaged over."""
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
    """People added up; means of figures over those that have them, None if nobody has."""
    row: Row = {}
    for field in fields(PictureScores):
        values = [v for v in (getattr(s, field.name) for s in scores) if not math.isnan(v)]
        if field.name.startswith("people"):
            row[field.name] = sum(values)
        else:
            row[field.name] = sum(values) / len(values) if values else None
    return row
