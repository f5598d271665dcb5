"""The row of a cell: its scores, its speed, and where all of it comes from."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np

from pipeline.benchmark.average_precision import detection_scores
from pipeline.benchmark.cell_code import code_sha256, library_versions
from pipeline.benchmark.cells import Cell
from pipeline.benchmark.metrics import preprocess, tracking_scores
from pipeline.benchmark.plan import EvalSettings, source_sha256
from pipeline.datasets.boxes import Boxes, as_written, evaluated
from pipeline.datasets.mot import Sequence
from pipeline.trackers.runners import TrackerOutput, joined
from pipeline.trackers.spec import STUDENT

STAGES = ("decode", "prepare", "detect", "encode", "step", "associate")


def score_cell(
    sequence: Sequence,
    cell: Cell,
    settings: EvalSettings,
    output: TrackerOutput,
    facts: dict[str, Any],
) -> tuple[dict[str, Any], Boxes | None, Boxes | None]:
    """The row of a cell, its tracks and its detections.

    Tracks are scored as a result file would hold them, to a hundredth of a pixel, so that the
    files of `vsdmot export` have the same scores.

    Args:
        sequence: With its ground truth.
        cell: Which.
        settings: The benchmark's.
        output: The tracker's.
        facts: Columns of the row beside scores; `trusted`, `frames` and `problem` are read here.
    """
    condition, tracker = cell.condition, cell.tracker
    limit = settings.length(sequence)
    gt = sequence.gt[sequence.gt.frame <= limit]
    trusted = facts.get("trusted") or settings.trusted
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
    tracks = joined(output.tracks) if tracker.tracks else None
    detections = joined(output.detections) if output.detections else None
    if detections is not None:
        detections = detections[detections.frame <= limit]
        row |= asdict(
            detection_scores(
                {sequence.name: (gt, detections, limit)}, trusted, settings.preprocessing
            )
        )
    if tracks is not None:
        tracks = as_written(tracks[tracks.frame <= limit])
        pair = preprocess(gt, tracks) if settings.preprocessing else (evaluated(gt), tracks)
        row |= asdict(tracking_scores({sequence.name: pair})[0][sequence.name])
    row |= facts | {"trusted": trusted} | _speed(output.stage_s, facts["frames"])
    if output.quality:  # a peer has that of its source, in the facts
        row["quality"] = float(np.mean(output.quality))
        row["semantic_weight"] = float(np.mean(output.semantic_weight))
    row |= {"stage_s": output.stage_s} | _provenance(sequence, cell, settings)
    return row, tracks, detections


def _speed(stage_s: dict[str, list[float]], frames: int) -> dict[str, float | None]:
    """Latency of a frame by stage in ms, and the frames a second that a worker would reach.

    A worker decodes in a thread of its own, so its rate is that of the slower thread. Degradation
    is left out, because it is work of the benchmark and not of the tracker.
    """
    found: dict[str, float | None] = {}
    for stage in STAGES:
        values = stage_s.get(stage)
        for share in (50, 95):
            ms = 1000 * float(np.percentile(values, share)) if values else None
            found[f"{stage}_p{share}_ms"] = ms
    thread = _total(stage_s.get(s, []) for s in ("decode", "prepare"))
    model = _total(stage_s.get(s, []) for s in ("detect", "encode", "step", "associate"))
    slower = max(thread, model)
    measured = "decode" in stage_s and slower > 0
    found["frames_per_second"] = frames / slower if measured else None
    return found


def _total(stages: Iterable[list[float]]) -> float:
    return float(sum(sum(values) for values in stages))


def _provenance(sequence: Sequence, cell: Cell, settings: EvalSettings) -> dict[str, Any]:
    tracker = cell.tracker
    return {
        "source_sha256": source_sha256(tracker.kind, tracker.path, sequence.name),
        "data_sha256": cell.data_sha256,
        "config_hash": cell.key,
        "code_sha256": code_sha256(),
        "preprocessing": settings.preprocessing,
        "frames_limit": settings.frames,
        "synthetic": settings.synthetic,
        "precision": "float32",
        "device": settings.device,
        "machine": f"{platform.machine()} {platform.system()}, 1 thread",
        "libraries": json.dumps(library_versions(tracker)),
        "computed": datetime.now(UTC).isoformat(timespec="seconds"),
    }
