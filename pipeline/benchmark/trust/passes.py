"""Sequences tracked by the student, clean and degraded, each pass computed once.

A pass is a sequence, or a stretch of it, under one condition, from the first frame with no tracks.
Its rows are kept in two files, whose names end in a hash of all that they depend on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from model.track.checkpoint import file_sha256
from pipeline.benchmark.cell_code import code_sha256, library_versions
from pipeline.benchmark.cells import cell_key
from pipeline.benchmark.plan import data_sha256
from pipeline.datasets.mot import Sequence
from pipeline.degrade.conditions import CLEAN, Condition
from pipeline.inference.runtime import Runtime
from pipeline.inference.shots import track_shots
from pipeline.storage import files as storage
from pipeline.trackers.sequence_frames import SequenceFrames
from pipeline.trackers.spec import FAST, STUDENT, TrackerSpec
from pipeline.tracking.tables import Columns, window_rows
from pipeline.tracking.track_video import batch_window

_FORMAT = 1
_WINDOW = 8  # frames encoded at once
_TABLES = ("frames", "tracks")  # in the order in which they are written
# What decides boxes and quality. Not all that this module imports: that is half of the project.
_CODE = (
    "pipeline.inference.runtime",
    "pipeline.inference.shots",
    "pipeline.trackers.sequence_frames",
)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Frames of a sequence under one condition.

    Attributes:
        sequence: of the frames.
        condition: how they are shown.
        first, end: index of the first frame, and of the one behind the last.
    """

    sequence: Sequence
    condition: Condition
    first: int
    end: int

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.end - self.first


@dataclass(frozen=True, slots=True)
class TrackedStretch:
    """The rows of `tracks` and `frames` of a stretch, by column, without `video_id`.

    Frame indices and times are those of the whole sequence.
    """

    stretch: Stretch
    tracks: Columns
    frames: Columns


def stretches(
    sequences: Items[Sequence], conditions: Items[Condition], frames: int
) -> list[Stretch]:
    """What is tracked: each sequence whole and clean, and a part of it under each other condition.

    Args:
        sequences: At least one.
        conditions: Clean among them or not.
        frames: Greatest length of a degraded part. The parts lie spread over the sequence.
    """
    poor = [condition for condition in conditions if condition.kind != CLEAN]
    found = []
    for sequence in sequences:
        found.append(Stretch(sequence, Condition(), 0, sequence.length))
        count = min(frames, sequence.length)
        for number, condition in enumerate(poor):
            first = round((sequence.length - count) * number / max(1, len(poor) - 1))
            found.append(Stretch(sequence, condition, first, first + count))
    return found


def track_stretches(
    model: Runtime,
    weights: str,
    wanted: Items[Stretch],
    output: str,
    advance: Callable[[int], None] = lambda frames: None,
) -> Iterator[TrackedStretch]:
    """Track what is not in `output` yet; yields all stretches in their order.

    Args:
        model: The student, opened on a CPU with the thresholds of its file.
        weights: That file.
        wanted: What to track.
        output: Folder or URL.
        advance: Called with a number of frames that are done.

    Raises:
        MotError, ProbeError, DecodeError: The frames of a sequence cannot be read.
        StorageError: The output, or a video, cannot be read or written.
    """
    sha256 = file_sha256(weights)
    spec = TrackerSpec("student", STUDENT, weights, FAST)
    common = {
        "format": _FORMAT,
        "weights": sha256,
        "runtime": type(model).__name__,
        "code": [code_sha256(entry=entry) for entry in _CODE],
        "libraries": library_versions(spec),
    }
    for stretch in wanted:
        key = cell_key(common | _deciding(stretch))
        name = f"{stretch.sequence.name}--{stretch.condition.name}--{key}"
        uris = [f"{output.rstrip('/')}/passes/{name}.{table}.parquet" for table in _TABLES]
        if storage.exists(uris[-1]):
            advance(stretch.frames)
        else:
            tracked = _tracked(model, stretch, f"{output.rstrip('/')}/codec", advance)
            for uri, columns in zip(uris, tracked, strict=True):
                storage.write_atomic(uri, _parquet(columns))
        frames, tracks = (_columns(storage.read_bytes(uri)) for uri in uris)
        yield TrackedStretch(stretch, tracks, frames)


def _deciding(stretch: Stretch) -> dict[str, object]:
    sequence, condition = stretch.sequence, stretch.condition
    return {
        "data": data_sha256(sequence),
        "seqinfo": [sequence.length, sequence.frame_rate, sequence.width, sequence.height],
        "condition": [condition.kind, condition.severity, condition.seed],
        "frames": [stretch.first, stretch.end],
    }


@torch.inference_mode()
def _tracked(
    model: Runtime, stretch: Stretch, codec: str, advance: Callable[[int], None]
) -> tuple[Columns, Columns]:
    """Rows of `frames` and of `tracks` of one stretch."""
    sequence = stretch.sequence
    canvas = model.config.canvas_for(sequence.height, sequence.width)
    shown = SequenceFrames(
        sequence, stretch.condition, stretch.end, {canvas}, False, codec, stretch.first
    )
    box, state = shown.letterboxes[canvas], model.initial_state(1)
    windows = []
    shots = iter(shown)
    while window := [shot.frames[canvas] for shot in islice(shots, _WINDOW)]:
        encoded = model.encode(*batch_window(window, box))
        results, state = track_shots(model, encoded, [frame.cut for frame in window], state)
        windows.append(window_rows(window, encoded, results, box, model.config.classes))
        advance(len(window))
    return _joined([w.frames for w in windows]), _joined([w.tracks for w in windows])


def _joined(parts: Items[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _parquet(columns: Columns) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def _columns(data: bytes) -> Columns:
    table = pq.read_table(pa.BufferReader(data))
    return {name: table[name].to_numpy() for name in table.column_names}
