"""Two measures on degraded sequences: agreement with the teacher, and quality against severity.

Frames are degraded at native size, in short runs of consecutive frames. The seed of each cell is
that of the benchmark, `sequence_seed`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from model.net.quality import sample_patches
from model.teach.distillation import Distiller, TeacherTargets
from model.teach.teacher import Teacher
from model.track.tracker import Tracker
from pipeline.degrade.kinds import KINDS, SEVERITIES, degrade, frame_severities, sequence_seed
from pipeline.storage.files import write_atomic
from pipeline.storage.schema import to_parquet_bytes
from pipeline.video.canvas import grey, letterboxed
from pipeline.video.decode import iterate_frames
from pipeline.video.info import VideoInfo

CLEAN, OVERALL = "clean", "ALL"
_RUN = 4  # consecutive frames degraded together, because a codec needs past frames

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive frames of a sequence.

    Attributes:
        sequence: its name.
        start: index of the first frame.
        pixels: (T, H, W, 3) uint8 RGB at native size.
    """

    sequence: str
    start: int
    pixels: np.ndarray


def frame_runs(name: str, info: VideoInfo, frames: int) -> list[Run]:
    """About `frames` frames of a video in runs spread evenly over it.

    Raises:
        DecodeError, StorageError: the video cannot be read.
    """
    total = info.frames_expected or 0
    length = min(_RUN, frames)
    count = max(1, frames // length)
    starts = [round(i * max(0, total - length) / max(1, count - 1)) for i in range(count)]
    kept: dict[int, list[np.ndarray]] = {start: [] for start in starts}
    for index, _, picture in iterate_frames(info):
        for start, pictures in kept.items():
            if start <= index < start + length:
                pictures.append(picture)
        if index >= max(starts) + length:
            break
    return [Run(name, start, np.stack(pictures)) for start, pictures in kept.items() if pictures]


def cells(run: Run, kinds: Sequence[str]) -> Iterator[tuple[str, int, np.ndarray, np.ndarray]]:
    """Yield kind, severity, pixels (T, H, W, 3) and frames' severity (T,); clean comes first."""
    yield CLEAN, 0, run.pixels, np.zeros(len(run.pixels))
    for kind in kinds:
        for severity in SEVERITIES:
            seed = sequence_seed(run.sequence, kind, severity)
            poor = degrade(run.pixels, kind, severity, seed, run.start)
            truth = frame_severities(kind, severity, seed, len(poor), run.start)
            yield kind, severity, poor, truth


def semantic_rows(
    tracker: Tracker,
    distiller: Distiller,
    teacher: Teacher,
    runs: Sequence[Run],
    device: str,
    kinds: Sequence[str] = KINDS,
    advance: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Measure 1: cosine of student and teacher, on degraded frames, to the teacher on clean ones.

    Args:
        tracker, distiller: a student and the projectors it was trained with.
        teacher: of the student's distillation.
        runs: frames to measure on.
        device: of all three.
        kinds: of degradation.
        advance: called after each cell.

    Returns:
        a row per sequence, kind and severity, then one per kind and severity over all frames
        (sequence `ALL`): student and teacher cosines, dense (mean over valid positions) and
        pooled, and the frames they are means of.
    """
    sums: dict[tuple[str, str, int], np.ndarray] = defaultdict(lambda: np.zeros(5))
    with torch.inference_mode():
        for run in runs:
            wanted: TeacherTargets | None = None
            for kind, severity, pixels, _ in cells(run, kinds):
                images, valid, patches = _inputs(tracker, pixels, device)
                seen = distiller.targets(teacher(images, valid))
                wanted = wanted or seen  # the clean cell is the first
                student = distiller.project(tracker.perceive(images, valid, patches))
                values = [
                    _agreement(dense, pooled, wanted)
                    for dense, pooled in (student, (seen.dense, seen.pooled))
                ]
                found = np.array([*values[0], *values[1], 1.0])
                for name in (run.sequence, OVERALL):
                    sums[name, kind, severity] += found * len(pixels)
                advance()
    names = ("student_dense", "student_pooled", "teacher_dense", "teacher_pooled")
    return [
        {"sequence": s, "kind": k, "severity": v, "frames": int(total[-1])}
        | dict(zip(names, (float(x) for x in total[:-1] / total[-1]), strict=True))
        for (s, k, v), total in sorted(sums.items(), key=lambda item: item[0][0] == OVERALL)
    ]


def quality_rows(
    tracker: Tracker,
    runs: Sequence[Run],
    device: str,
    kinds: Sequence[str] = KINDS,
    advance: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Measure 2: Spearman's rank correlation of `1 - q` with the true severity of frames.

    Args:
        tracker: the student.
        runs: frames to measure on.
        device: of the student.
        kinds: of degradation.
        advance: called after each cell.

    Returns:
        a row per sequence and kind, and per sequence over all kinds (kind `ALL`), then the same
        over all sequences (sequence `ALL`). Clean frames belong to every kind, with severity 0.
        `frames` is the number of ranked frames; `correlation` is None if quality is constant.
    """
    truth: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    measured: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    with torch.inference_mode():
        for run in runs:
            for kind, _, pixels, severity in cells(run, kinds):
                found = tracker.perceive(*_inputs(tracker, pixels, device))
                quality = found.quality.float().cpu().numpy()
                for sequence in (run.sequence, OVERALL):
                    for member in (*kinds, OVERALL) if kind == CLEAN else (kind, OVERALL):
                        truth[sequence, member].append(severity)
                        measured[sequence, member].append(quality)
                advance()
    rows = []
    for (sequence, kind), severities in sorted(truth.items(), key=lambda x: x[0][0] == OVERALL):
        levels = np.concatenate(severities)
        quality = np.concatenate(measured[sequence, kind])
        spread = len(np.unique(quality)) > 1
        value = float(spearmanr(levels, -quality).statistic) if spread else None
        row = {"sequence": sequence, "kind": kind, "frames": len(levels), "correlation": value}
        rows.append(row | {"quality": float(quality.mean())})
    return rows


def _inputs(tracker: Tracker, pixels: np.ndarray, device: str) -> tuple[Tensor, Tensor, Tensor]:
    config = tracker.config
    canvases = [letterboxed(p, config.input_height, config.input_width) for p in pixels]
    images = torch.stack([image for image, _ in canvases])
    valid = torch.tensor([size for _, size in canvases])
    patches = torch.from_numpy(np.stack([sample_patches(grey(p)) for p in pixels]))
    return images.to(device), valid.to(device), patches.to(device)


def _agreement(dense: Tensor, pooled: Tensor, wanted: TeacherTargets) -> tuple[float, float]:
    """Mean cosine over valid positions, and mean cosine of the vectors."""
    cosine = F.cosine_similarity(dense, wanted.dense, dim=1)
    return (
        float(cosine[wanted.valid].mean()),
        float(F.cosine_similarity(pooled, wanted.pooled, dim=1).mean()),
    )


def write_rows(output: str, what: str, rows: Sequence[Row], record: dict[str, Any]) -> str:
    """Write `<what>.parquet` and `<what>.json` below `output`; returns the URL of the latter.

    Raises:
        StorageError: the output cannot be written.
    """
    target = f"{output.rstrip('/')}/{what}"
    stamped = pa.Table.from_pylist(list(rows)).replace_schema_metadata(
        {"provenance": json.dumps(record)}
    )
    write_atomic(f"{target}.parquet", to_parquet_bytes(stamped))
    text = json.dumps({"provenance": record, "rows": rows}, indent=2)
    write_atomic(f"{target}.json", (text + "\n").encode())
    return f"{target}.json"
