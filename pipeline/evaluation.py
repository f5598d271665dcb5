"""Compute the missing cells of a sequence under a condition: one pass over its frames for all."""

from __future__ import annotations

import hashlib
import json
import platform
import resource
import sys
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.allocator import keep_large_blocks
from model.checkpoint import CheckpointError, file_sha256, load_tracker
from model.tracker import Tracker
from pipeline import storage
from pipeline.ablation import FULL, variant_exists
from pipeline.bench import count_gflops, count_parameters
from pipeline.cells import (
    DETECTION,
    Cell,
    cell_key,
    code_sha256,
    read_boxes,
    read_row,
    write_cell,
)
from pipeline.conditions import CLEAN, Condition
from pipeline.decode import DecodeError
from pipeline.detectors import Detector, DetectorError, detector_files, open_detector
from pipeline.metrics import detection_scores, evaluated, preprocess, tracking_scores
from pipeline.mot import MotError, Sequence, read_results
from pipeline.peers import track_detections
from pipeline.probe import ProbeError
from pipeline.runners import DetectorRun, Seen, StudentRun, joined
from pipeline.sequence_frames import SequenceFrames
from pipeline.storage import StorageError
from pipeline.tracker_spec import DETECTOR, FILES, PUBLIC, STUDENT, TrackerSpec

_LIBRARIES = (
    "motmetrics", "trackeval", "pycocotools", "trackers", "numpy", "scipy", "torch", "timm", "av",
    "pillow", "onnxruntime", "openvino",
)  # fmt: skip
_EXPECTED = (MotError, ProbeError, DecodeError, StorageError, DetectorError, CheckpointError)


@dataclass(frozen=True, slots=True)
class EvalSettings:
    """What every cell is computed with.

    Attributes:
        output: folder or URL; cells go below it, re-encoded videos too.
        frames: from the start of each sequence; None is all of them.
        preprocessing: the MOT16/17 rule.
        trusted: score that makes a detector's detection high for a peer; students bring their own.
        window: frames encoded as one batch.
        device: "cpu" or "cuda".
        synthetic: whether the sequences are drawn, not filmed.
    """

    output: str
    frames: int | None = None
    preprocessing: bool = True
    trusted: float = 0.5
    window: int = 8
    device: str = "cpu"
    synthetic: bool = False


@dataclass(frozen=True, slots=True)
class Unit:
    """Work for one process: cells of one sequence under one condition."""

    sequence: Sequence
    condition: Condition
    cells: tuple[Cell, ...]
    settings: EvalSettings

    @property
    def cost(self) -> int:
        """Roughly, in frames times passes."""
        runs = sum(not c.tracker.peer for c in self.cells)
        return runs * min(self.sequence.length, self.settings.frames or self.sequence.length)


@dataclass(frozen=True, slots=True)
class UnitResult:
    """What became of a unit: names of cells computed, and reasons by tracker for the others."""

    sequence: str
    condition: str
    computed: tuple[str, ...]
    failed: dict[str, str]


def plan_cells(
    sequences: Items[Sequence],
    shown: Items[Condition],
    trackers: Items[TrackerSpec],
    settings: EvalSettings,
) -> list[Cell]:
    """Every cell of the benchmark, sources of detections among them.

    A seed that changes neither pixels nor tracker gives no cell of its own; nor has a tracker that
    only knows the clean video one under a degradation.
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
                cells.append(Cell(sequence.name, condition, tracker, cell_key(deciding)))
    return cells


def cell_uri(output: str, cell: Cell) -> str:
    """Where a cell lies."""
    return f"{output.rstrip('/')}/cells/{cell.name}.parquet"


def run_unit(unit: Unit, progress: Callable[[int], None] = lambda frames: None) -> UnitResult:
    """Compute the unit's cells and publish each; what goes wrong costs its own cells."""
    torch.set_num_threads(1)  # as jobs.track: how a sum is split changes its last bits
    keep_large_blocks()
    computed: list[str] = []
    failed: dict[str, str] = {}
    looking = [c for c in unit.cells if not c.tracker.peer]
    try:
        for cell, seen, extra in _look(unit, looking, progress, failed):
            _publish(unit, cell, seen, extra)
            computed.append(cell.name)
    except _EXPECTED as error:
        failed |= {c.tracker.name: str(error) for c in looking if c.name not in computed}
    for cell in unit.cells:
        if not cell.tracker.peer:
            continue
        try:
            _publish(unit, cell, *_follow(unit, cell))
            computed.append(cell.name)
        except _EXPECTED as error:
            source = cell.tracker.source.name
            failed[cell.tracker.name] = failed.get(source, str(error))
    return UnitResult(unit.sequence.name, unit.condition.name, tuple(computed), failed)


def data_sha256(sequence: Sequence) -> str:
    """A hash of a sequence: its ground truth, its public detections, what its video holds."""
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
        "condition": [condition.kind, condition.severity, condition.seed],
        "source": source_sha256(tracker.kind, tracker.path, sequence.name),
        "variant": tracker.variant,
        "peer": tracker.peer,
        "frames": settings.frames,
        "preprocessing": settings.preprocessing,
        "trusted": None if student else settings.trusted,
        "window": settings.window if student else None,
        "code": code_sha256(student),
    }


@lru_cache(maxsize=256)
def source_sha256(kind: str, path: str, sequence: str) -> str:
    """A hash of what a tracker is made of; "" for a sequence's own detections.

    Raises:
        CheckpointError, DetectorError, MotError: The file is not there.
    """
    if kind == PUBLIC:
        return ""
    files = {STUDENT: [Path(path)], FILES: [Path(path) / f"{sequence}.txt"]}
    digest = hashlib.sha256()
    for file in files.get(kind) or detector_files(path):
        if not file.is_file():
            error = {STUDENT: CheckpointError, FILES: MotError}.get(kind, DetectorError)
            raise error(f"{file}: no such file")
        digest.update(file_sha256(file).encode())
    return file_sha256(path) if kind == STUDENT else digest.hexdigest()


@lru_cache(maxsize=8)
def _student(path: str, device: str) -> tuple[Tracker, dict[str, float]]:
    tracker, _ = load_tracker(path, device)
    with torch.inference_mode():
        size = {
            "parameters_m": count_parameters(tracker)["total"],
            "gflops": count_gflops(tracker)["total"],
        }
    return tracker, size


@lru_cache(maxsize=8)
def _detector(path: str) -> Detector:
    return open_detector(path)


_Extra = dict[str, Any]


def _look(
    unit: Unit, cells: list[Cell], progress: Callable[[int], None], failed: dict[str, str]
) -> list[tuple[Cell, Seen, _Extra]]:
    """Show the frames once to every student and detector of the unit."""
    sequence, settings = unit.sequence, unit.settings
    done = [(c, *_given(sequence, c)) for c in cells if c.tracker.kind == FILES]
    cells = [c for c in cells if c.tracker.kind in (STUDENT, DETECTOR)]
    if not cells:
        return done
    students: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell.tracker.kind == STUDENT:
            students.setdefault(cell.tracker.path, []).append(cell)
    loaded = {path: _student(path, settings.device) for path in students}
    canvases = {(t.config.input_height, t.config.input_width) for t, _ in loaded.values()}
    native = any(c.tracker.kind == DETECTOR for c in cells)
    frames = SequenceFrames(
        sequence, unit.condition, settings.frames, canvases, native, f"{settings.output}/codec"
    )
    runs: list[tuple[StudentRun | DetectorRun, list[Cell]]] = []
    for path, mine in students.items():
        tracker = loaded[path][0]
        # The full student first: its times are then measured, not reckoned.
        names = sorted((c.tracker.variant for c in mine), key=lambda v: (v != FULL, v))
        box = frames.letterboxes[tracker.config.input_height, tracker.config.input_width]
        run = StudentRun(tracker, names, sequence.name, unit.condition, box, settings.device)
        runs.append((run, mine))
    for cell in cells:
        if cell.tracker.kind == DETECTOR:
            runs.append((DetectorRun(_detector(cell.tracker.path)), [cell]))
    stages: dict[str, list[float]] = {"decode": [], "degrade": [], "prepare": []}
    shots = iter(frames)
    while window := list(islice(shots, settings.window)):
        for stage, values in stages.items():
            values += [getattr(shot, f"{stage}_s") for shot in window]
        for one, _ in runs:
            one.see(window)
        progress(len(window))
    for one, mine in runs:
        for cell in mine:
            seen = one.seen[cell.tracker.variant] if isinstance(one, StudentRun) else one.seen
            seen.stage_s |= stages
            extra: _Extra = {"frames": frames.decoded, "problem": frames.problem}
            if cell.tracker.kind == STUDENT:
                tracker, size = loaded[cell.tracker.path]
                c = tracker.config
                extra |= size | {"input": f"{c.input_height}x{c.input_width}"}
                extra["trusted"] = c.birth_threshold
            done.append((cell, seen, extra))
    return done


def _given(sequence: Sequence, cell: Cell) -> tuple[Seen, _Extra]:
    """Somebody's result file."""
    path = Path(cell.tracker.path) / f"{sequence.name}.txt"
    tracks = read_results(path, sequence.length)
    return Seen(tracks=[tracks]), {"frames": sequence.length, "problem": None}


def _follow(unit: Unit, cell: Cell) -> tuple[Seen, _Extra]:
    """A peer on detections that are there already."""
    sequence, settings, tracker = unit.sequence, unit.settings, cell.tracker
    length = min(sequence.length, settings.frames or sequence.length)
    source: dict[str, Any] = {"frames": length, "trusted": settings.trusted}
    if tracker.kind == PUBLIC:
        assert sequence.detections is not None
        detections = sequence.detections
    else:
        data = data_sha256(sequence)
        deciding = _deciding(sequence, data, unit.condition, tracker.source, settings)
        uri = cell_uri(
            settings.output, replace(cell, tracker=tracker.source, key=cell_key(deciding))
        )
        detections, source = read_boxes(uri, DETECTION), read_row(uri)
    tracks, seconds = track_detections(
        tracker.peer, detections, length, sequence.frame_rate, source["trusted"]
    )
    names = ("frames", "problem", "trusted", "parameters_m", "gflops", "input", "quality")
    seen = Seen(tracks=[tracks], detections=[detections])
    seen.stage_s = {k: v for k, v in source.get("stage_s", {}).items() if k != "step"}
    seen.took("associate", seconds, length)
    return seen, {name: source.get(name) for name in names}


def _publish(unit: Unit, cell: Cell, seen: Seen, extra: _Extra) -> None:
    """Score what was seen, and write the cell."""
    sequence, condition, tracker = unit.sequence, cell.condition, cell.tracker
    settings = unit.settings
    limit = settings.frames or sequence.length
    gt = sequence.gt[sequence.gt.frame <= limit]
    trusted = extra.pop("trusted", None) or settings.trusted
    row: dict[str, Any] = {
        "sequence": sequence.name,
        "condition": condition.name,
        "kind": condition.kind,
        "severity": condition.severity,
        "seed": condition.seed,
        "tracker": tracker.name,
        "tracks": tracker.tracks,
        "variant": tracker.variant if tracker.kind == STUDENT else "",
        "peer": tracker.peer,
    }
    tracks = joined(seen.tracks) if tracker.tracks else None
    detections = joined(seen.detections) if seen.detections else None
    if detections is not None:
        detections = detections[detections.frame <= limit]
        length = min(limit, sequence.length)
        row |= asdict(
            detection_scores(
                {sequence.name: (gt, detections, length)}, trusted, settings.preprocessing
            )
        )
    if tracks is not None:
        tracks = tracks[tracks.frame <= limit]
        pair = preprocess(gt, tracks) if settings.preprocessing else (evaluated(gt), tracks)
        row |= asdict(tracking_scores({sequence.name: pair})[0][sequence.name])
    # A peer has looked at nothing: the quality is what its source measured.
    row |= _quality(seen) | extra | _speed(seen.stage_s, extra["frames"])
    row |= {"trusted": trusted, "stage_s": seen.stage_s} | _provenance(unit, cell)
    write_cell(cell_uri(settings.output, cell), row, tracks, detections)


def _quality(seen: Seen) -> dict[str, float | None]:
    return {
        "quality": float(np.mean(seen.quality)) if seen.quality else None,
        "semantic_weight": float(np.mean(seen.semantic_weight)) if seen.semantic_weight else None,
    }


def _speed(stage_s: dict[str, list[float]], frames: int) -> dict[str, float | None]:
    """Latency a frame by stage in ms, and frames a second as a worker would reach them.

    A worker decodes in a thread of its own, so its rate is that of the slower of the two.
    Degrading is the benchmark's work, not the tracker's, and is left out.
    """
    found: dict[str, float | None] = {}
    for stage in ("decode", "prepare", "detect", "encode", "step", "associate"):
        values = stage_s.get(stage)
        for share in (50, 95):
            ms = 1000 * float(np.percentile(values, share)) if values else None
            found[f"{stage}_p{share}_ms"] = ms
    thread = sum(_total(stage_s.get(s, [])) for s in ("decode", "prepare"))
    model = sum(_total(stage_s.get(s, [])) for s in ("detect", "encode", "step", "associate"))
    slower = max(thread, model)
    measured = "decode" in stage_s and slower > 0
    found["frames_per_second"] = frames / slower if measured else None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found["peak_rss_mb"] = peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
    return found


def _total(values: Items[float]) -> float:
    return float(sum(values))


def _provenance(unit: Unit, cell: Cell) -> dict[str, Any]:
    tracker, settings = cell.tracker, unit.settings
    data = data_sha256(unit.sequence)
    return {
        "source_sha256": source_sha256(tracker.kind, tracker.path, unit.sequence.name),
        "data_sha256": data,
        "config_hash": cell.key,
        "code_sha256": code_sha256(tracker.kind == STUDENT),
        "preprocessing": settings.preprocessing,
        "frames_limit": settings.frames,
        "synthetic": settings.synthetic,
        "precision": "float32",
        "device": settings.device,
        "machine": f"{platform.machine()} {platform.system()}, 1 thread",
        "libraries": json.dumps({name: _version(name) for name in _LIBRARIES}),
        "computed": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
