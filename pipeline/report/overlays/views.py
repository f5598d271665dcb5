"""Clear pictures of tracks, spread over their time, cut out for labelling."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from pipeline.report.overlays.rows import Array, OverlayRows
from pipeline.report.source_pictures import pictures_at
from pipeline.storage.files import write_atomic
from pipeline.trust.sums import greatest_overlap
from pipeline.video.info import VideoInfo

Format = Literal["jpg", "png"]

COLUMNS = ("file", "video_id", "video", "track_id", "frame_index", "time_s",
           "x", "y", "w", "h", "score", "quality", "trust")  # fmt: skip
"""Columns of the list of pictures."""

_MARGIN = 0.1  # of the box, on each side
_POOREST = 0.25  # what a picture is worth at quality 0, compared with 1.25 at quality 1
_JPEG_QUALITY = 92


@dataclass(frozen=True, slots=True)
class View:
    """A picture that was written: its file below the folder, and the row it shows."""

    file: str
    row: int


def clear_views(rows: OverlayRows, tracks: Collection[int], each: int) -> Array:
    """Rows that show tracks best, at most `each` of a track, one of each part of its time.

    The best picture is large, sure, not hidden by another box, and of a good frame.
    """
    order = np.argsort(rows.frame, kind="stable")
    covered = np.empty(len(rows.frame))
    covered[order] = greatest_overlap(rows.frame[order], rows.boxes[order].astype(np.float64))
    value = np.sqrt(rows.boxes[:, 2] * rows.boxes[:, 3]) * rows.score * (1 - covered)
    value = value * (_POOREST + rows.quality[rows.frame])
    found = []
    for number in sorted(tracks):
        begin, end = np.searchsorted(rows.track_id, (number, number + 1))
        time_s = rows.time_s[rows.frame[begin:end]]
        length = max(time_s[-1] - time_s[0], 1e-9)
        part = np.minimum((time_s - time_s[0]) / length * each, each - 1).astype(int)
        best = np.lexsort((value[begin:end], part))
        last = np.r_[part[best][1:] != part[best][:-1], True]  # the greatest of each part
        found.append(begin + best[last])
    return np.concatenate([np.zeros(0, int), *found])


def write_views(
    info: VideoInfo, rows: OverlayRows, chosen: Array, folder: str, kind: Format
) -> Iterator[View]:
    """Write a picture of each chosen row, as `<video_id>/<track>-<frame_index>.<kind>`.

    Args:
        info: The source.
        rows: Its rows.
        chosen: Places in `rows`.
        folder: Folder or URL.
        kind: Format of the pictures.

    Yields:
        Each picture after it is written, in order of time. In a file that ends early the rest is
        missing.

    Raises:
        DecodeError: The source cannot be decoded.
        StorageError: The source cannot be read, or the folder cannot be written.
    """
    by_time: dict[float, list[int]] = {}
    for row in chosen.tolist():
        by_time.setdefault(float(rows.time_s[rows.frame[row]]), []).append(row)
    for time_s, picture in pictures_at(info, sorted(by_time)):
        for row in by_time[time_s]:
            name = f"{rows.track_id[row]}-{rows.index[rows.frame[row]]}.{kind}"
            file = f"{info.video_id}/{name}"
            write_atomic(f"{folder}/{file}", _encoded(_cut(picture, rows.boxes[row]), kind))
            yield View(file, row)


def listed(info: VideoInfo, rows: OverlayRows, view: View) -> dict[str, object]:
    """The line of a picture in the list; the box is that of the table, in pixels of the frame."""
    row = view.row
    frame = int(rows.frame[row])
    box = {
        side: round(float(value), 2) for side, value in zip("xywh", rows.boxes[row], strict=True)
    }
    number = int(rows.track_id[row])
    return {
        "file": view.file, "video_id": info.video_id, "video": info.relative_path,
        "track_id": number, "frame_index": int(rows.index[frame]),
        "time_s": round(float(rows.time_s[frame]), 3), **box,
        "score": round(float(rows.score[row]), 3), "quality": round(float(rows.quality[frame]), 3),
        "trust": round(rows.trust[number], 3) if number in rows.trust else "",
    }  # fmt: skip


def _cut(picture: Array, box: Array) -> Array:
    """What lies in a box and a little around it, within the picture."""
    height, width = picture.shape[:2]
    x, y, w, h = box.tolist()
    left, top = max(0, int(x - _MARGIN * w)), max(0, int(y - _MARGIN * h))
    right = min(width, max(left + 1, round(x + (1 + _MARGIN) * w)))
    bottom = min(height, max(top + 1, round(y + (1 + _MARGIN) * h)))
    left, top = min(left, right - 1), min(top, bottom - 1)
    return picture[top:bottom, left:right]


def _encoded(picture: Array, kind: Format) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(picture))
    image.save(file, "JPEG" if kind == "jpg" else "PNG", quality=_JPEG_QUALITY)
    return file.getvalue()
