"""The MOTChallenge layout: one folder per sequence, with ground truth and detections as text.

    SEQUENCE/gt/gt.txt     frame, id, x, y, w, h, conf, class, visibility   (10 columns in MOT15)
    SEQUENCE/det/det.txt   frame, -1, x, y, w, h, score, …
    SEQUENCE/seqinfo.ini   name, frameRate, seqLength, imWidth, imHeight
    SEQUENCE/video.mp4     or any other video, or pictures in img1/

Frames count from 1; boxes are pixels, top-left corner and size. A malformed row is an error that
names the file, the line, its content and what was expected.
"""

from __future__ import annotations

import configparser
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.datasets.boxes import PEDESTRIAN, Boxes, as_written

_VIDEO_NAMES = ("video.mp4", "video.mpg", "video.avi", "video.mkv", "video.mov")
_COLUMNS = ("frame", "id", "x", "y", "w", "h", "conf", "class", "visibility")


class MotError(ValueError):
    """A file of a sequence is missing or malformed; the message says which, where and how."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """One sequence: its video (or the folder of its pictures), ground truth and detections.

    `frame_rate` is in frames per second, `length` in frames, `width` and `height` in pixels.
    """

    name: str
    folder: Path
    video: Path
    frame_rate: float
    length: int
    width: int
    height: int
    gt: Boxes
    detections: Boxes | None
    gt_file: Path | None = None


def find_sequences(root: str | Path) -> list[Path]:
    """Folders below `root` (or `root` itself) with ground truth, sorted by path."""
    root = Path(root)
    if not root.is_dir():
        raise MotError(f"{root}: no such folder; expected sequences in MOTChallenge layout")
    found, seen = [], set()
    for folder, below, _ in os.walk(root, followlinks=True):
        place = os.path.realpath(folder)
        if place in seen:  # a link to a folder above
            below.clear()
            continue
        seen.add(place)
        if Path(folder, "gt", "gt.txt").is_file():
            found.append(Path(folder))
            below.clear()  # img1/ may have very many files
    if not found:
        raise MotError(f"{root}: no sequence with gt/gt.txt in it or below it")
    return sorted(found)


def read_sequence(folder: str | Path) -> Sequence:
    """Read a sequence with its ground truth, and its public detections if there are any.

    Raises:
        MotError: A file is missing or malformed.
    """
    folder = Path(folder)
    info = _read_seqinfo(folder / "seqinfo.ini")
    pictures = folder / info.get("imDir", "img1")
    videos = [folder / name for name in (info.get("video", ""), *_VIDEO_NAMES) if name]
    video = next((path for path in videos if path.is_file()), pictures)
    if video == pictures and not pictures.is_dir():
        raise MotError(f"{folder}: neither {_VIDEO_NAMES[0]} (or .mpg, …) nor {pictures.name}/")
    length = info["seqLength"]
    detections = folder / "det" / "det.txt"
    return Sequence(
        name=info["name"],
        folder=folder,
        video=video,
        frame_rate=info["frameRate"],
        length=length,
        width=info["imWidth"],
        height=info["imHeight"],
        gt=read_gt(folder / "gt" / "gt.txt", length, (info["imWidth"], info["imHeight"])),
        detections=read_detections(detections, length) if detections.is_file() else None,
        gt_file=folder / "gt" / "gt.txt",
    )


def read_gt(
    path: str | Path, length: int | None = None, size: tuple[int, int] | None = None
) -> Boxes:
    """Read ground truth of 9 columns, or of 10 as in MOT15 (world coordinates, only pedestrians).

    `size`: width and height of the picture, in which every box must lie at least in part.
    """
    rows = _read_rows(Path(path), (9, 10), length, identified=True, size=size)
    kinds = [PEDESTRIAN if len(row) == 10 else int(row[7]) for row in rows]
    # MOT15 has world coordinates in this column. In converted files -1 means "unknown".
    seen = [1.0 if len(row) == 10 or row[8] < 0 else row[8] for row in rows]
    return _boxes(rows, kinds, seen)


def read_detections(path: str | Path, length: int | None = None) -> Boxes:
    """Read detections: 6 columns, the score, and up to three others."""
    rows = _read_rows(Path(path), range(7, 11), length, identified=False)
    return _boxes(rows, PEDESTRIAN)


def read_results(path: str | Path, length: int | None = None) -> Boxes:
    """Read a tracker's result file, as `write_results` makes it."""
    rows = _read_rows(Path(path), range(7, 11), length, identified=True)
    return _boxes(rows, PEDESTRIAN)


def result_text(boxes: Boxes) -> str:
    """A result file's content as the MOTChallenge server takes it; see `as_written`."""
    lines = []
    boxes = as_written(boxes)
    for i in range(len(boxes)):
        x, y, w, h = boxes.xywh[i]
        lines.append(
            f"{boxes.frame[i]},{boxes.track_id[i]},{x:.2f},{y:.2f},{w:.2f},{h:.2f},"
            f"{boxes.confidence[i]:.4f},-1,-1,-1\n"
        )
    return "".join(lines)


def write_results(path: str | Path, boxes: Boxes) -> None:
    """Write a result file; see `result_text`."""
    Path(path).write_text(result_text(boxes), encoding="ascii")


def _boxes(rows: list[list[float]], class_id: Any, visibility: Any = 1.0) -> Boxes:
    table = np.array([row[:7] for row in rows], dtype=np.float64).reshape(-1, 7)
    return Boxes.of(table[:, 0], table[:, 1], table[:, 2:6], table[:, 6], class_id, visibility)


def _read_rows(
    path: Path,
    columns: Any,
    length: int | None,
    identified: bool,
    size: tuple[int, int] | None = None,
) -> list[list[float]]:
    """Read and check the rows of a file; blank lines are skipped."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MotError(f"{path}: cannot be read as text: {error}") from error
    rows: list[list[float]] = []
    seen: dict[tuple[float, float], int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue

        def wrong(expected: str, at: int = number, text: str = line) -> MotError:
            return MotError(f"{path}, line {at}: expected {expected}; found {text.strip()!r}")

        row = _numbers(line, wrong)
        if len(row) not in columns:
            raise wrong(f"{columns[0]} to {columns[-1]} columns ({', '.join(_COLUMNS)}, …)")
        if row[0] < 1 or row[0] != int(row[0]):
            raise wrong("a frame number, an integer from 1")
        if length is not None and row[0] > length:
            raise wrong(f"a frame up to {length} (seqLength)")
        if row[1] != int(row[1]):
            raise wrong("an integer as id")
        if row[4] <= 0 or row[5] <= 0:
            raise wrong("positive width and height")
        if size is not None and not _inside(row[2:6], *size):
            raise wrong(f"a box inside the picture of {size[0]}x{size[1]}, at least in part")
        if identified:
            before = seen.setdefault((row[0], row[1]), number)
            if before != number:
                raise wrong(f"an id once in a frame (id {row[1]:.0f} stands in line {before} too)")
        rows.append(row)
    return rows


def _inside(box: list[float], width: int, height: int) -> bool:
    x, y, w, h = box
    return x < width and y < height and x + w > 0 and y + h > 0


def _numbers(line: str, wrong: Callable[[str], MotError]) -> list[float]:
    try:
        row = [float(field) for field in line.rstrip(", \t\r").split(",")]
    except ValueError:
        raise wrong("numbers separated by commas") from None
    if not all(map(math.isfinite, row)):
        raise wrong("finite numbers")
    return row


def _read_seqinfo(path: Path) -> dict[str, Any]:
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"), source=str(path))
        section: dict[str, Any] = dict(parser["Sequence"])
    except (OSError, UnicodeDecodeError, configparser.Error, KeyError) as error:
        raise MotError(f"{path}: expected a section [Sequence]: {error}") from error
    kinds: dict[str, Callable[[str], Any]] = {
        "name": str, "frameRate": float, "seqLength": int, "imWidth": int, "imHeight": int,
    }  # fmt: skip
    for key, kind in kinds.items():
        try:
            section[key] = kind(section[key])
        except KeyError:
            raise MotError(f"{path}: the key {key} is missing from [Sequence]") from None
        except ValueError:
            raise MotError(f"{path}: {key} is {section[key]!r}; expected a number") from None
        if kind is not str and section[key] <= 0:
            raise MotError(f"{path}: {key} is {section[key]}; expected a number above 0")
    return section
