"""Export of the tracks of a run of `vsdmot eval` as MOTChallenge result files."""

from __future__ import annotations

import io
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.datasets.boxes import Boxes
from pipeline.datasets.mot import result_text
from pipeline.exchange.errors import ExportError
from pipeline.exchange.mot import ARCHIVE, counted_from_1, result_names, zip_entry
from pipeline.storage import files as storage


def is_benchmark(run: str) -> bool:
    """Whether a folder or URL is a run of `vsdmot eval`.

    Raises:
        StorageError: It cannot be read.
    """
    return storage.exists(f"{run}/rows.parquet")


def export_benchmark(run: str, output: str) -> tuple[int, int]:
    """Write the tracks of a run of `vsdmot eval`, into folders TRACKER/CONDITION/seed-N.

    Each folder has a NAME.txt for each sequence, and all of them in `motchallenge.zip`.

    Returns:
        number of result files, and of folders.

    Raises:
        ExportError: The run has no tracks.
        StorageError: Something cannot be read or written.
    """
    folders = _benchmark_tracks(run)
    count = 0
    for folder, tracks in folders.items():
        files = motchallenge_files(tracks)
        for name, content in files.items():
            storage.write_atomic(f"{output}/{folder}/{name}", content)
        storage.write_atomic(f"{output}/{folder}/{ARCHIVE}", zipped(files))
        count += len(files)
    return count, len(folders)


def motchallenge_files(tracks: dict[str, Boxes]) -> dict[str, bytes]:
    """Result files by name. Ids and frames are counted from 1, as the server requires."""
    files: dict[str, bytes] = {}
    for name, boxes in sorted(tracks.items()):
        content = result_text(counted_from_1(boxes)).encode("ascii")
        files |= dict.fromkeys(result_names(name), content)
    return files


def zipped(files: dict[str, bytes]) -> bytes:
    """The files in one archive without folders; equal files give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zip_entry(name), content)
    return buffer.getvalue()


def _benchmark_tracks(run: str) -> dict[str, dict[str, Boxes]]:
    """Tracks by folder TRACKER/CONDITION/seed-N, then by sequence."""
    # Imported here, because it imports torch, which takes seconds and other exports do without.
    from pipeline.benchmark.cells import TRACK, file_name, read_boxes

    found: dict[str, dict[str, Boxes]] = {}
    table = pq.read_table(pa.BufferReader(storage.read_bytes(f"{run}/rows.parquet")))
    for row in table.to_pylist():
        if row["tracks"]:
            place = f"{file_name(row['tracker'])}/{row['condition']}/seed-{row['seed']}"
            boxes = read_boxes(f"{run}/cells/{row['cell']}.parquet", TRACK)
            found.setdefault(place, {})[row["sequence"]] = boxes
    if not found:
        raise ExportError(
            f"{run}: has detections alone; name a tracker in trackers= of vsdmot eval"
        )
    return found
