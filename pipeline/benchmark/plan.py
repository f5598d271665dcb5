"""Plan of a benchmark: its cells, their keys, and units of work."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from model.track.checkpoint import CheckpointError, file_sha256
from pipeline.benchmark.cell_code import code_sha256, library_versions
from pipeline.benchmark.cells import Cell, cell_key
from pipeline.datasets.mot import Sequence
from pipeline.degrade.conditions import CLEAN, Condition
from pipeline.storage import files as storage
from pipeline.trackers.detectors import DetectorError, detector_files
from pipeline.trackers.spec import DETECTOR, FILES, PUBLIC, STUDENT, TrackerSpec
from pipeline.trackers.variants import variant_exists

# Core-seconds a frame and a cell on a small server; `vsdmot eval` prints the real ones.
# They are used only to order the work and to estimate its time.
_FRAME_S, _STUDENT_S, _VARIANT_S, _DETECTOR_S, _SCORE_S = 0.09, 0.25, 0.09, 0.06, 0.005
_CELL_S = 0.07


@dataclass(frozen=True, slots=True)
class EvalSettings:
    """Settings of all cells.

    Attributes:
        output: folder or URL of cells and re-encoded videos.
        frames: from the start of each sequence; None is all of them.
        preprocessing: the MOT16/17 rule.
        trusted: score from which a detector's detection is high for a peer; a student has its own.
        window: frames encoded as one batch.
        device: "cpu" or "cuda".
        synthetic: whether the sequences are drawn instead of filmed.
    """

    output: str
    frames: int | None = None
    preprocessing: bool = True
    trusted: float = 0.5
    window: int = 8
    device: str = "cpu"
    synthetic: bool = False

    def length(self, sequence: Sequence) -> int:
        """Frames of a sequence that count."""
        return min(sequence.length, self.frames or sequence.length)


@dataclass(frozen=True, slots=True)
class Unit:
    """Work for one process: cells of one sequence under one condition."""

    sequence: Sequence
    condition: Condition
    cells: tuple[Cell, ...]
    settings: EvalSettings

    @property
    def frames(self) -> int:
        """Frames to process."""
        return self.settings.length(self.sequence)

    @property
    def core_s(self) -> float:
        """Roughly how many core-seconds it takes."""
        sources = [c.tracker for c in self.cells if not c.tracker.peer]
        students = [t.path for t in sources if t.kind == STUDENT]
        detectors = sum(t.kind == DETECTOR for t in sources)
        each = len(set(students)) * _STUDENT_S + len(students) * _VARIANT_S
        each += detectors * _DETECTOR_S + len(self.cells) * _SCORE_S
        each += _FRAME_S if sources else 0.0
        return self.frames * each + len(self.cells) * _CELL_S


def plan_cells(
    sequences: Items[Sequence],
    shown: Items[Condition],
    trackers: Items[TrackerSpec],
    settings: EvalSettings,
) -> list[Cell]:
    """Every cell of the benchmark, sources of detections among them.

    A further seed gives a cell only if it changes the pixels or the tracker. Result files and
    public detections are of the clean video, so they have no cells under degradations.

    Raises:
        CheckpointError, DetectorError: A file of a tracker is missing.
    """
    sources = {t.source.name: t.source for t in trackers}
    wanted = list({t.name: t for t in (*sources.values(), *trackers)}.values())
    wanted = [t for t in wanted if t.kind != PUBLIC or t.peer]
    first = shown[0].seed if shown else 0
    cells = []
    for sequence in sequences:
        data = data_sha256(sequence)
        for condition in shown:
            for tracker in wanted:
                fresh = condition.seed == first or condition.drawn or tracker.random
                clean_only = tracker.kind in (PUBLIC, FILES)
                if not fresh or (clean_only and condition.kind != CLEAN):
                    continue
                if tracker.kind == PUBLIC and sequence.detections is None:
                    continue
                if not variant_exists(tracker.variant, condition):
                    continue
                deciding = _deciding(sequence, data, condition, tracker, settings)
                cells.append(Cell(sequence.name, condition, tracker, data, cell_key(deciding)))
    return cells


def cell_uri(output: str, cell: Cell) -> str:
    """Path or URL of a cell."""
    return f"{output.rstrip('/')}/cells/{cell.name}.parquet"


def source_cell(unit: Unit, cell: Cell) -> Cell:
    """The cell whose detections a peer's cell is made from."""
    source = cell.tracker.source
    deciding = _deciding(unit.sequence, cell.data_sha256, cell.condition, source, unit.settings)
    return replace(cell, tracker=source, key=cell_key(deciding))


def data_sha256(sequence: Sequence) -> str:
    """A hash of a sequence: of its ground truth, public detections and video."""
    digest = hashlib.sha256(sequence.name.encode())
    texts = [sequence.gt_file, sequence.folder / "det" / "det.txt"]
    for path in texts:
        if path is not None and path.is_file():
            digest.update(path.read_bytes())
    if sequence.video.is_dir():
        for path in sorted(sequence.video.iterdir()):
            digest.update(f"{path.name}{path.stat().st_size}".encode())
    else:
        file = next(storage.list_videos(str(sequence.video)))
        digest.update(storage.content_identity(file).encode())
    return digest.hexdigest()


@lru_cache(maxsize=256)
def source_sha256(kind: str, path: str, sequence: str) -> str:
    """A hash of a tracker's files; "" for a sequence's own detections and missing result files.

    Raises:
        CheckpointError, DetectorError: The file is missing.
    """
    if kind == PUBLIC:
        return ""
    files = {STUDENT: [Path(path)], FILES: [Path(path) / f"{sequence}.txt"]}
    digest = hashlib.sha256()
    for file in files.get(kind) or detector_files(path):
        if not file.is_file():
            if kind == FILES:  # an error of this sequence alone, when its cell is computed
                return ""
            error = CheckpointError if kind == STUDENT else DetectorError
            raise error(f"{file}: no such file; weights=, students= and detectors= name them")
        digest.update(file_sha256(file).encode())
    return file_sha256(path) if kind == STUDENT else digest.hexdigest()


def _deciding(
    sequence: Sequence,
    data: str,
    condition: Condition,
    tracker: TrackerSpec,
    settings: EvalSettings,
) -> dict[str, Any]:
    student = tracker.kind == STUDENT
    return {
        "sequence": sequence.name,
        "data": data,
        # From seqinfo.ini, which is not part of the hash of the data.
        "seqinfo": [sequence.length, sequence.frame_rate, sequence.width, sequence.height],
        "condition": [condition.kind, condition.severity, condition.seed],
        "source": source_sha256(tracker.kind, tracker.path, sequence.name),
        "variant": tracker.variant,
        "peer": tracker.peer,
        "frames": settings.frames,
        "preprocessing": settings.preprocessing,
        "trusted": None if student else settings.trusted,
        "window": settings.window if student else None,
        "code": code_sha256(),
        "libraries": library_versions(tracker),
        "device": settings.device,
    }
