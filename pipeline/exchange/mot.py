"""Tracks as MOTChallenge result files, as its server takes them.

Frames and ids count from 1. A frame number is that of the decoded frame plus 1.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO, cast

import numpy as np

from pipeline.datasets.boxes import Boxes
from pipeline.datasets.mot import result_text
from pipeline.exchange.config import TracksConfig
from pipeline.exchange.files import published
from pipeline.exchange.names import TextFiles
from pipeline.exchange.source import VideoTracks
from pipeline.storage import files as storage

_MOT17 = re.compile(r"^(MOT17-\d{2})(-(DPM|FRCNN|SDP))?$")
ARCHIVE = "motchallenge.zip"


def result_names(sequence: str) -> list[str]:
    """Names of the result files of a sequence.

    MOT17 has each video three times, with different public detections. Without use of those the
    same tracks are handed in three times.
    """
    match = _MOT17.match(sequence)
    names = [f"{match[1]}-{d}" for d in ("DPM", "FRCNN", "SDP")] if match else [sequence]
    return [f"{name}.txt" for name in names]


def counted_from_1(boxes: Boxes) -> Boxes:
    """Boxes whose least id is at least 1, as the server requires."""
    shift = 1 - int(boxes.track_id.min()) if len(boxes) and boxes.track_id.min() < 1 else 0
    return Boxes.of(boxes.frame, boxes.track_id + shift, boxes.xywh, boxes.confidence)


def result_boxes(tracks: VideoTracks) -> Iterator[Boxes]:
    """Boxes of a video in the order of frames, some at a time; ids and frames count from 1."""
    lowest = min((int(rows.track_id.min()) for rows in tracks.rows()), default=1)
    waiting = Boxes.of([], [], [])
    for rows in tracks.rows():
        ids = rows.track_id + max(0, 1 - lowest)
        read = Boxes.of(rows.frame + 1, ids, rows.xywh, rows.score)
        waiting = _joined(waiting, read)
        # The last frame may have more rows in the next batch, so it is kept back.
        end = int(np.searchsorted(waiting.frame, waiting.frame[-1]))
        yield waiting[:end]
        waiting = waiting[end:]
    yield waiting


def write_motchallenge(
    run: str, output: str, videos: Iterable[VideoTracks], config: TracksConfig
) -> int:
    """Write NAME.txt for each video, and all of them in `motchallenge.zip`; returns their number.

    Raises:
        ExportError: two videos have one name.
        StorageError: something cannot be read or written.
    """
    names, count = TextFiles(run), 0
    with (
        published(f"{output}/{ARCHIVE}") as target,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for tracks in videos:
            own = names.of(tracks.video.relative_path, result_names)
            with tempfile.TemporaryFile(prefix="vsdmot-") as file:
                for boxes in result_boxes(tracks):
                    file.write(result_text(boxes).encode("ascii"))
                file.flush()
                for name in own:
                    storage.publish(f"{output}/{name}", cast(BinaryIO, file))
                    file.seek(0)
                    with archive.open(zip_entry(name), "w", force_zip64=True) as entry:
                        shutil.copyfileobj(file, entry)
                    count += 1
    return count


def zip_entry(name: str) -> zipfile.ZipInfo:
    """A compressed entry of an archive, without time, so that equal files give equal archives."""
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _joined(a: Boxes, b: Boxes) -> Boxes:
    names = ("frame", "track_id", "xywh", "confidence")
    return Boxes.of(*(np.concatenate([getattr(a, n), getattr(b, n)]) for n in names))
