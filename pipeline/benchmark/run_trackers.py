"""Run students and detectors on a sequence, all in one pass over its frames."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import torch

from model.track.tracker import Tracker
from pipeline.benchmark.plan import EvalSettings
from pipeline.datasets.mot import Sequence
from pipeline.degrade.conditions import Condition
from pipeline.speed.cost import count_gflops, count_parameters
from pipeline.trackers.detectors import Detector, open_detector
from pipeline.trackers.runners import DetectorRun, FastRun, StudentRun, TrackerOutput
from pipeline.trackers.sequence_frames import SequenceFrames
from pipeline.trackers.spec import DETECTOR, FAST, STUDENT, TrackerSpec


@dataclass(frozen=True, slots=True)
class TrackerRuns:
    """Results of one pass.

    Attributes:
        outputs: by tracker's name.
        facts: columns of the tracker's row, by tracker's name: frames, problem, size, input,
            trusted.
        core_s: processor time of "students" and of "detectors".
    """

    outputs: dict[str, TrackerOutput]
    facts: dict[str, dict[str, Any]]
    core_s: dict[str, float]


def run_trackers(
    sequence: Sequence,
    condition: Condition,
    trackers: Items[TrackerSpec],
    settings: EvalSettings,
    progress: Callable[[int], None] = lambda frames: None,
) -> TrackerRuns:
    """Run all of `trackers`, students and detectors, in one pass over the frames.

    Raises:
        MotError, ProbeError, DecodeError, StorageError: The frames cannot be read.
        CheckpointError, DetectorError, RuntimeUnavailable: A tracker cannot be opened.
    """
    students: dict[str, list[str]] = {}
    for tracker in trackers:
        if tracker.kind == STUDENT:
            students.setdefault(tracker.path, []).append(tracker.variant)
    detectors = [t for t in trackers if t.kind == DETECTOR]
    loaded = {path: _student(path, settings.device) for path in students}
    sides = sequence.height, sequence.width
    canvases = {path: t.config.canvas_for(*sides) for path, (t, _) in loaded.items()}
    frames = SequenceFrames(
        sequence,
        condition,
        settings.frames,
        set(canvases.values()),
        bool(detectors),
        f"{settings.output}/codec",
    )
    runs: dict[tuple[str, str], StudentRun | FastRun | DetectorRun] = {}
    for path, variants in students.items():
        model = loaded[path][0]
        names = sorted(set(variants) - {FAST})
        box = frames.letterboxes[canvases[path]]
        if names:
            run = StudentRun(model, names, sequence.name, condition, box, settings.device)
            runs |= {(path, name): run for name in names}
        if FAST in variants:
            runs[path, FAST] = FastRun(path, box)
    runs |= {(t.path, t.variant): DetectorRun(_detector(t.path)) for t in detectors}

    stages: dict[str, list[float]] = {"decode": [], "degrade": [], "prepare": []}
    core_s: dict[str, float] = {}
    shots = iter(frames)
    while window := list(islice(shots, settings.window)):
        for stage, values in stages.items():
            values += [getattr(shot, f"{stage}_s") for shot in window]
        for each in dict.fromkeys(runs.values()):
            started = time.thread_time()
            each.process(window)
            part = "detectors" if isinstance(each, DetectorRun) else "students"
            core_s[part] = core_s.get(part, 0.0) + time.thread_time() - started
        progress(len(window))

    outputs, facts = {}, {}
    for tracker in trackers:
        of = runs[tracker.path, tracker.variant]
        output = of.outputs[tracker.variant] if isinstance(of, StudentRun) else of.output
        output.stage_s |= stages
        fact: dict[str, Any] = {"frames": frames.decoded, "problem": frames.problem}
        if tracker.kind == STUDENT:
            model, size = loaded[tracker.path]
            fact |= size | {"input": f"{model.config.input_height}x{model.config.input_width}"}
            fact["trusted"] = model.config.birth_threshold
        outputs[tracker.name], facts[tracker.name] = output, fact
    return TrackerRuns(outputs, facts, core_s)


@lru_cache(maxsize=8)
def _student(path: str, device: str) -> tuple[Tracker, dict[str, float]]:
    tracker, _ = Tracker.load(path, device)
    with torch.inference_mode():
        size = {
            "parameters_m": count_parameters(tracker)["total"],
            "gflops": count_gflops(tracker)["total"],
        }
    return tracker, size


@lru_cache(maxsize=8)
def _detector(path: str) -> Detector:
    return open_detector(path)
