"""Cells of a benchmark: one sequence under one condition by one tracker, each computed once.

A cell is one Parquet file: its boxes (tracks, and the detections they were made from) as rows, its
figures and their provenance as JSON in the file's metadata. Its name ends in a hash of all that its
content depends on, so a file of this name is up to date and not computed again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.datasets.boxes import Boxes
from pipeline.degrade.conditions import Condition
from pipeline.storage import files as storage
from pipeline.trackers.spec import TrackerSpec

FORMAT = 1
TRACK, DETECTION = 0, 1
_ROW = b"row"


@dataclass(frozen=True, slots=True)
class Cell:
    """Identity of a cell: readable names, and hashes.

    Attributes:
        data_sha256: hash of the sequence.
        key: hash of all that the cell depends on.
    """

    sequence: str
    condition: Condition
    tracker: TrackerSpec
    data_sha256: str
    key: str

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        shown = f"{self.condition.name}--s{self.condition.seed}"
        return f"{self.sequence}--{shown}--{file_name(self.tracker.name)}--{self.key}"


def file_name(tracker: str) -> str:
    """A tracker's name as part of a path, without the colon that some systems forbid."""
    return tracker.replace(":", ".")


def cell_key(deciding: dict[str, Any]) -> str:
    """Hash of all that a cell depends on, 12 hex digits."""
    text = json.dumps({"format": FORMAT, **deciding}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write_cell(
    uri: str, row: dict[str, Any], tracks: Boxes | None, detections: Boxes | None
) -> None:
    """Publish a cell atomically; an existing one stays as it is."""
    parts = [(TRACK, tracks), (DETECTION, detections)]
    given = [(kind, boxes) for kind, boxes in parts if boxes is not None]
    columns: dict[str, Any] = {
        "kind": np.concatenate([np.full(len(b), k, np.uint8) for k, b in given]),
        "frame": np.concatenate([b.frame for _, b in given]),
        "id": np.concatenate([b.track_id for _, b in given]),
        "score": np.concatenate([b.confidence for _, b in given]),
    }
    xywh = np.concatenate([b.xywh for _, b in given])
    columns |= {name: xywh[:, i] for i, name in enumerate("xywh")}
    # JSON has no NaN, so a missing figure is null.
    plain = {k: None if isinstance(v, float) and v != v else v for k, v in row.items()}
    metadata = {_ROW: json.dumps(plain, allow_nan=False).encode()}
    table = pa.table(columns).replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    storage.create_if_absent(uri, sink.getvalue().to_pybytes())


def read_row(uri: str) -> dict[str, Any]:
    """The figures of a cell."""
    metadata = pq.read_metadata(pa.BufferReader(storage.read_bytes(uri))).metadata
    row: dict[str, Any] = json.loads(metadata[_ROW])
    return row


def read_boxes(uri: str, kind: int) -> Boxes:
    """The tracks (kind `TRACK`) or detections (`DETECTION`) of a cell."""
    table = pq.read_table(pa.BufferReader(storage.read_bytes(uri)))
    rows = {name: table[name].to_numpy() for name in ("kind", "frame", "id", "score", *"xywh")}
    keep = rows.pop("kind") == kind
    xywh = np.stack([rows[name][keep] for name in "xywh"], axis=1)
    return Boxes.of(rows["frame"][keep], rows["id"][keep], xywh, rows["score"][keep])
