"""Export of tracks as MOTChallenge result files, as its server takes them.

A run is one of `vsdmot track`, with tables for each video, or of `vsdmot eval`, with cells.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.benchmark.cells import TRACK, file_name, read_boxes
from pipeline.datasets.boxes import Boxes
from pipeline.datasets.mot import result_text
from pipeline.storage import files as storage
from pipeline.storage.reading import read_batches, read_video

_CONTAINERS = ("video", "img1", "images", "frames")
_MOT17 = re.compile(r"^(MOT17-\d{2})(-(DPM|FRCNN|SDP))?$")


class ExportError(ValueError):
    """Nothing to export, or an ambiguous name; the message says what to do."""


def sequence_name(relative_path: str) -> str:
    """The sequence of a video: its file name, or its folder if the file is called video.mp4."""
    path = PurePosixPath(relative_path)
    if path.stem.lower() in _CONTAINERS and path.parent.name:
        return path.parent.name
    return path.stem


def is_benchmark(run: str) -> bool:
    """Whether a folder or URL is a run of `vsdmot eval`.

    Raises:
        StorageError: It cannot be read.
    """
    return storage.exists(f"{run}/rows.parquet")


def benchmark_tracks(run: str) -> dict[str, dict[str, Boxes]]:
    """The tracks of a run of `vsdmot eval`, by folder TRACKER/CONDITION/seed-N, then by sequence.

    Raises:
        ExportError: The run has no tracks.
        StorageError: The run cannot be read.
    """
    found: dict[str, dict[str, Boxes]] = {}
    for row in _read(f"{run}/rows.parquet").to_pylist():
        if row["tracks"]:
            place = f"{file_name(row['tracker'])}/{row['condition']}/seed-{row['seed']}"
            boxes = read_boxes(f"{run}/cells/{row['cell']}.parquet", TRACK)
            found.setdefault(place, {})[row["sequence"]] = boxes
    if not found:
        raise ExportError(
            f"{run}: has detections alone; name a tracker in trackers= of vsdmot eval"
        )
    return found


def run_tracks(run: str, class_name: str) -> dict[str, Boxes]:
    """The tracks of a run of `vsdmot track` by sequence, with frames from 1 and the run's ids.

    Raises:
        ExportError: No video is done, or two have one name.
        StorageError: The run cannot be read.
    """
    found: dict[str, Boxes] = {}
    batches = read_batches(run, "videos", ["video_id", "relative_path"])
    videos = [row for batch in batches for row in batch.to_pylist()]
    for row in sorted(videos, key=lambda row: str(row["video_id"])):
        name = sequence_name(row["relative_path"])
        if name in found:
            raise ExportError(
                f"{run}: two videos would both be {name}.txt ({row['relative_path']} is the "
                "second); track them into runs of their own"
            )
        table = read_video(run, "tracks", row["video_id"])
        table = table.filter(pc.equal(table["class_name"], class_name))
        columns = {n: table[n].to_numpy() for n in ("frame_index", "track_id", "score", *"xywh")}
        found[name] = Boxes.of(
            columns["frame_index"] + 1,
            columns["track_id"],
            np.stack([columns[n] for n in "xywh"], axis=1),
            columns["score"],
        )
    if not found:
        raise ExportError(f"{run}: no video is tracked; run vsdmot track into it first")
    return found


def motchallenge_files(tracks: dict[str, Boxes]) -> dict[str, bytes]:
    """Result files by name. Ids and frames are counted from 1, as the server requires.

    MOT17 has each video three times, with different public detections. Without use of those the
    same tracks are handed in three times.
    """
    files: dict[str, bytes] = {}
    for name, boxes in sorted(tracks.items()):
        shift = 1 - int(boxes.track_id.min()) if len(boxes) and boxes.track_id.min() < 1 else 0
        moved = Boxes.of(boxes.frame, boxes.track_id + shift, boxes.xywh, boxes.confidence)
        match = _MOT17.match(name)
        names = [f"{match[1]}-{d}" for d in ("DPM", "FRCNN", "SDP")] if match else [name]
        files |= {f"{n}.txt": result_text(moved).encode("ascii") for n in names}
    return files


def zipped(files: dict[str, bytes]) -> bytes:
    """The files in one archive without folders; equal files give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _read(uri: str) -> pa.Table:
    return pq.read_table(pa.BufferReader(storage.read_bytes(uri)))
