"""Cells of a benchmark: one sequence under one condition by one tracker, each computed once.

A cell is one Parquet file: its boxes (tracks, and the detections they were made from) as rows, its
figures and their provenance as JSON in the file's metadata. Its name ends in a hash of all that
decides its content, so what is there is never computed again and never mistaken.
"""

from __future__ import annotations

import ast
import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import storage
from pipeline.boxes import Boxes
from pipeline.conditions import Condition
from pipeline.tracker_spec import TrackerSpec

FORMAT = 1
TRACK, DETECTION = 0, 1
_ROW = b"row"
_ROOT = Path(__file__).resolve().parent.parent
# What decides pixels, boxes and scores; of the model, the tracker and all it is built on. Of files
# that hold more than that, the functions that do.
_PIPELINE_CODE: dict[str, tuple[str, ...]] = dict.fromkeys(
    (
        "ablation", "average_precision", "boxes", "codec", "conditions", "decode", "degrade",
        "detectors", "eval_look", "metrics", "mot", "peers", "runners", "second_order",
        "sequence_frames",
    ), (),
) | {
    "eval_rows": ("score_cell",), "tables": ("window_rows", "_stack"), "track": ("batch_window",),
}  # fmt: skip
_MODEL_CODE = ("tracker", "letterbox")


@dataclass(frozen=True, slots=True)
class Cell:
    """What identifies a cell: names to read, and a key that stands for its content."""

    sequence: str
    condition: Condition
    tracker: TrackerSpec
    key: str

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        shown = f"{self.condition.name}--s{self.condition.seed}"
        return f"{self.sequence}--{shown}--{file_name(self.tracker.name)}--{self.key}"


def file_name(tracker: str) -> str:
    """A tracker's name as part of a path: a colon is none on every system."""
    return tracker.replace(":", ".")


def cell_key(deciding: dict[str, Any]) -> str:
    """12 hex digits that stand for what decides a cell."""
    text = json.dumps({"format": FORMAT, **deciding}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@lru_cache(maxsize=2)
def code_sha256(student: bool) -> str:
    """A hash of the code that decides results; comments, docstrings and layout do not count."""
    files = {_ROOT / "pipeline" / f"{name}.py": only for name, only in _PIPELINE_CODE.items()}
    if student:
        files |= dict.fromkeys(_model_files(), ())
    digest = hashlib.sha256()
    for path, only in files.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if only:
            tree.body = [node for node in tree.body if getattr(node, "name", None) in only]
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [line for line in body if not _is_text(line)]  # type: ignore[attr-defined]
        digest.update(path.name.encode() + ast.dump(tree).encode())
    return digest.hexdigest()


def write_cell(
    uri: str, row: dict[str, Any], tracks: Boxes | None, detections: Boxes | None
) -> None:
    """Publish a cell, whole or not at all; one that is there stays."""
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
    # JSON has no NaN: what does not exist is null.
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


def _model_files() -> list[Path]:
    found: set[str] = set()
    waiting = list(_MODEL_CODE)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for node in ast.walk(ast.parse((_ROOT / "model" / f"{name}.py").read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("model."):
                waiting.append(str(node.module).removeprefix("model."))
    return [_ROOT / "model" / f"{name}.py" for name in sorted(found)]


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
