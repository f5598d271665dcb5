"""Find all sequences of a benchmark below a folder, in the layouts of several data sets.

MOT15, MOT16, MOT17, MOT20, DanceTrack and SportsMOT share one layout (`datasets.mot`): folders
with gt/gt.txt, seqinfo.ini and img1/ or a video. KITTI tracking has label_02/NAME.txt beside
image_02/NAME/ (or NAME.mp4). A sequence that cannot be used is left out with the reason.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from PIL import Image

from pipeline.datasets.boxes import Boxes, evaluated
from pipeline.datasets.mot import MotError, Sequence, read_sequence
from pipeline.storage.files import VIDEO_EXTENSIONS

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_DETECTORS = re.compile(r"^(.+)-(FRCNN|SDP|DPM)$")
_KITTI_FPS = 10.0
# KITTI's types in MOT16's numbering. Sitting people and DontCare regions are distractors: to detect
# them is not an error.
_KITTI_CLASSES = {
    "Pedestrian": 1, "Cyclist": 2, "Car": 3, "Van": 3, "Truck": 3, "Tram": 3, "Misc": 9,
    "Person_sitting": 7, "Person": 7, "DontCare": 8,
}  # fmt: skip
_KITTI_COLUMNS = "frame, id, type, truncated, occluded, alpha, left, top, right, bottom, …"


@dataclass(frozen=True, slots=True)
class DataSet:
    """Usable sequences by name, and the reason for each one that is left out, by name."""

    sequences: dict[str, Sequence]
    left_out: dict[str, str]


def read_data(root: str | Path, chosen: list[str] | None = None) -> DataSet:
    """Every sequence at or below a folder, whatever its layout.

    `chosen`: names to keep; None or [] keeps all. MOT17 has each sequence three times, with other
    detections; one copy is kept, the first one that exists of FRCNN, SDP, DPM.

    Raises:
        MotError: There is no such folder, no sequence in it, or none of a chosen name.
    """
    found, left_out = {}, {}
    for name, reader, place in sorted(_places(Path(root)), key=lambda item: str(item[2])):
        if name in found or name in left_out:
            left_out[f"{name} ({place})"] = f"{place}: a sequence {name} was found before this one"
            continue
        if chosen and name not in chosen:
            continue
        try:
            sequence = reader(place)
        except MotError as error:
            left_out[name] = str(error)
            continue
        if len(evaluated(sequence.gt)):
            found[name] = sequence
        else:
            left_out[name] = f"{sequence.gt_file}: holds no person to follow (class 1, flag 1)"
    _keep_one_copy(found, left_out)
    if chosen and (missing := [n for n in chosen if n not in found and n not in left_out]):
        raise MotError(f"{root}: no sequence called {missing[0]}; sequences= names what is there")
    if not found and not left_out:
        raise MotError(f"{root}: no sequence with gt/gt.txt and no label_02/*.txt below it")
    return DataSet(found, left_out)


def picture_files(folder: Path) -> list[Path]:
    """Picture files of a folder, sorted by name."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES)


def read_kitti(labels: Path) -> Sequence:
    """Read a KITTI tracking sequence from its label file. Frames count from 1; in KITTI from 0.

    Raises:
        MotError: A row is malformed, or pictures and video are missing.
    """
    root, name = labels.parent.parent, labels.stem
    folder = root / "image_02" / name
    videos = [root / "image_02" / f"{name}{suffix}" for suffix in sorted(VIDEO_EXTENSIONS)]
    video = next((path for path in videos if path.is_file()), folder)
    if folder.is_dir() and (pictures := picture_files(folder)):
        video, length = folder, len(pictures)
        with Image.open(pictures[0]) as first:
            width, height = first.size
    elif video.is_file():
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            width, height, length = stream.width, stream.height, stream.frames
    else:
        raise MotError(f"{labels}: neither pictures in {folder} nor a video {folder}.mp4")
    gt = _kitti_boxes(labels, length or None)
    length = length or int(gt.frame.max(initial=0))
    return Sequence(
        name=name,
        folder=root,
        video=video,
        frame_rate=_KITTI_FPS,
        length=length,
        width=width,
        height=height,
        gt=gt,
        detections=None,
        gt_file=labels,
    )


def _places(root: Path) -> list[tuple[str, Any, Path]]:
    """Name, reader and path of every sequence, also of those without ground truth."""
    if not root.is_dir():
        raise MotError(f"{root}: no such folder; expected sequences in MOTChallenge layout")
    found: list[tuple[str, Any, Path]] = []
    seen = set()
    for place, below, files in os.walk(root, followlinks=True):
        real, folder = os.path.realpath(place), Path(place)
        if real in seen:  # a link to a folder above
            below.clear()
            continue
        seen.add(real)
        if "seqinfo.ini" in files or (folder / "gt" / "gt.txt").is_file():
            found.append((folder.name, _read_mot, folder))
            below.clear()  # img1/ may have very many files
        elif folder.name == "label_02":
            found += [(Path(f).stem, read_kitti, folder / f) for f in files if f.endswith(".txt")]
        elif folder.name == "image_02":
            below.clear()
    return found


def _read_mot(folder: Path) -> Sequence:
    if not (folder / "gt" / "gt.txt").is_file():
        raise MotError(f"{folder}: has no ground truth; expected gt/gt.txt")
    return read_sequence(folder)


def _keep_one_copy(found: dict[str, Sequence], left_out: dict[str, str]) -> None:
    order = ("FRCNN", "SDP", "DPM")
    copies: dict[str, list[str]] = {}
    for name in found:
        if match := _DETECTORS.match(name):
            copies.setdefault(match[1], []).append(name)
    for names in copies.values():
        first, *others = sorted(names, key=lambda n: order.index(n.rpartition("-")[2]))
        for name in others:
            left_out[name] = f"{found.pop(name).folder}: the same video as {first}, counted once"


def _kitti_boxes(path: Path, length: int | None) -> Boxes:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MotError(f"{path}: cannot be read as text: {error}") from error
    rows: list[tuple[int, int, list[float], int]] = []
    seen: dict[tuple[int, int], int] = {}
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields:
            continue

        def wrong(expected: str, at: int = number, text: str = line) -> MotError:
            return MotError(f"{path}, line {at}: expected {expected}; found {text.strip()!r}")

        if len(fields) not in (17, 18):
            raise wrong(f"17 columns ({_KITTI_COLUMNS})")
        try:
            frame, identity = int(fields[0]), int(fields[1])
            left, top, right, bottom = map(float, fields[6:10])
        except ValueError:
            raise wrong("whole numbers for frame and id, numbers for the box") from None
        if fields[2] not in _KITTI_CLASSES:
            raise wrong(f"a type out of {', '.join(_KITTI_CLASSES)}")
        if frame < 0 or (length is not None and frame >= length):
            raise wrong(f"a frame from 0 to {length - 1 if length else '…'}")
        if (
            not all(map(math.isfinite, (left, top, right, bottom)))
            or left >= right
            or top >= bottom
        ):
            raise wrong("left < right and top < bottom")
        if identity < 0:  # DontCare regions all have the id -1
            identity = -number
        if (before := seen.setdefault((frame, identity), number)) != number:
            raise wrong(f"an id once in a frame (id {identity} stands in line {before} too)")
        box = [left, top, right - left, bottom - top]
        rows.append((frame + 1, identity, box, _KITTI_CLASSES[fields[2]]))
    columns = list(zip(*rows, strict=True)) if rows else [(), (), (), ()]
    return Boxes.of(columns[0], columns[1], columns[2], 1.0, columns[3])
