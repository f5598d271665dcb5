"""Compute the missing cells of a sequence under a condition, and publish each as it is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from model.allocator import keep_large_blocks
from model.track.checkpoint import CheckpointError
from pipeline.benchmark.cells import DETECTION, Cell, read_boxes, read_row, write_cell
from pipeline.benchmark.plan import Unit, cell_uri, source_cell
from pipeline.benchmark.rows import score_cell
from pipeline.benchmark.run_trackers import run_trackers
from pipeline.datasets.mot import MotError, read_results
from pipeline.degrade.conditions import Condition
from pipeline.inference.runtime import RuntimeUnavailable
from pipeline.storage.files import StorageError
from pipeline.trackers.detectors import DetectorError
from pipeline.trackers.peers import PeerError, track_detections
from pipeline.trackers.runners import TrackerOutput
from pipeline.trackers.spec import FILES, PUBLIC
from pipeline.video.errors import DecodeError
from pipeline.video.probe import ProbeError

_DATA = (MotError, ProbeError, DecodeError)
EXPECTED = (
    *_DATA,
    StorageError,
    DetectorError,
    CheckpointError,
    PeerError,
    RuntimeUnavailable,
)
"""Errors of a cell that are reported in the result instead of raised."""
_OF_SOURCE = (
    "frames", "problem", "trusted", "parameters_m", "gflops", "input", "quality",
)  # fmt: skip


@dataclass(slots=True)
class UnitResult:
    """The result of a unit.

    Attributes:
        sequence: its name.
        condition: of the sequence.
        computed: names of the cells that were published.
        failed: the reason why a cell is missing, by tracker.
        bad_data: the first of these reasons that is an error of the data and not of a tracker.
        core_s: processor time by part of the work. "frames" is the time of other threads, which
            decode, degrade and scale; "rest" is the time of no other part.
        frames: number of frames processed.
    """

    sequence: str
    condition: Condition
    computed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    bad_data: str | None = None
    core_s: dict[str, float] = field(default_factory=dict)
    frames: int = 0

    def fail(self, trackers: list[str], error: Exception) -> None:
        """Record why trackers have no cell."""
        self.failed |= dict.fromkeys(trackers, str(error))
        if isinstance(error, _DATA) and self.bad_data is None:
            self.bad_data = str(error)

    def took(self, part: str, since: float) -> None:
        """Add a part of the work that began at `since` of this thread's time."""
        self.core_s[part] = self.core_s.get(part, 0.0) + time.thread_time() - since


@dataclass(slots=True)
class Spent:
    """Sum of the processor time of units; as text, the time of each frame under a condition."""

    frames: int = 0
    core_s: dict[str, float] = field(default_factory=dict)

    def add(self, result: UnitResult) -> None:
        """Count a unit."""
        self.frames += result.frames
        for part, seconds in result.core_s.items():
            self.core_s[part] = self.core_s.get(part, 0.0) + seconds

    def __str__(self) -> str:
        ms = 1000 / max(1, self.frames)
        total = sum(self.core_s.values())
        parts = ", ".join(f"{part} {ms * seconds:.0f}" for part, seconds in self.core_s.items())
        return (
            f"{total:.0f} core-seconds, {ms * total:.0f} ms for each of {self.frames} frames shown "
            f"under a condition: {parts}"
        )


def run_unit(unit: Unit, progress: Callable[[int], None] = lambda frames: None) -> UnitResult:
    """Compute the unit's cells and publish each; an error costs only the cells it belongs to."""
    torch.set_num_threads(1)  # as `vsdmot track`, because the split of a sum changes its last bits
    keep_large_blocks()
    result = UnitResult(unit.sequence.name, unit.condition)
    everywhere, here = time.process_time(), time.thread_time()
    _run(unit, result, progress)
    for cell in unit.cells:
        if cell.tracker.kind == FILES or cell.tracker.peer:
            try:
                started = time.thread_time()
                output, facts = (_follow if cell.tracker.peer else _given)(unit, cell)
                result.took("peers", started)
                _publish(unit, cell, output, facts, result)
            except EXPECTED as error:
                source = result.failed.get(cell.tracker.source.name)
                if cell.tracker.peer and source:  # no detections, for the source's reason
                    result.failed[cell.tracker.name] = source
                else:
                    result.fail([cell.tracker.name], error)
    everywhere, here = time.process_time() - everywhere, time.thread_time() - here
    result.core_s["rest"] = here - sum(result.core_s.values())
    result.core_s["frames"] = everywhere - here
    return result


def _run(unit: Unit, result: UnitResult, progress: Callable[[int], None]) -> None:
    """Compute and publish the cells of students and detectors."""
    cells = [c for c in unit.cells if not c.tracker.peer and c.tracker.kind != FILES]
    if not cells:
        return
    try:
        trackers = [c.tracker for c in cells]
        runs = run_trackers(unit.sequence, unit.condition, trackers, unit.settings, progress)
        result.core_s |= runs.core_s
        result.frames = unit.frames
        for cell in cells:
            name = cell.tracker.name
            _publish(unit, cell, runs.outputs[name], runs.facts[name], result)
    except EXPECTED as error:
        result.fail([c.tracker.name for c in cells if c.name not in result.computed], error)


def _given(unit: Unit, cell: Cell) -> tuple[TrackerOutput, dict[str, Any]]:
    """The tracks of a result file."""
    path = Path(cell.tracker.path) / f"{unit.sequence.name}.txt"
    if not path.is_file():
        raise MotError(
            f"{path}: no such file; a tracker's folder holds one for each sequence, empty where it "
            "tracked nothing; sequences= chooses sequences"
        )
    tracks = read_results(path, unit.sequence.length)
    return TrackerOutput(tracks=[tracks]), {"frames": unit.frames, "problem": None}


def _follow(unit: Unit, cell: Cell) -> tuple[TrackerOutput, dict[str, Any]]:
    """The tracks of a peer on detections that are computed already."""
    sequence, tracker = unit.sequence, cell.tracker
    source: dict[str, Any] = {"frames": unit.frames, "trusted": unit.settings.trusted}
    if tracker.kind == PUBLIC:
        assert sequence.detections is not None
        detections = sequence.detections
    else:
        uri = cell_uri(unit.settings.output, source_cell(unit, cell))
        detections, source = read_boxes(uri, DETECTION), read_row(uri)
    tracks, seconds = track_detections(
        tracker.peer, detections, unit.frames, sequence.frame_rate, source["trusted"]
    )
    output = TrackerOutput(tracks=[tracks], detections=[detections])
    output.stage_s = {k: v for k, v in source.get("stage_s", {}).items() if k != "step"}
    output.took("associate", seconds, unit.frames)
    return output, {name: source.get(name) for name in _OF_SOURCE}


def _publish(
    unit: Unit, cell: Cell, output: TrackerOutput, facts: dict[str, Any], result: UnitResult
) -> None:
    """Score an output, and write the cell."""
    started = time.thread_time()
    row, tracks, detections = score_cell(unit.sequence, cell, unit.settings, output, facts)
    write_cell(cell_uri(unit.settings.output, cell), row, tracks, detections)
    result.computed.append(cell.name)
    result.took("scores", started)
