"""The path of a worker, from the file to rows, by runtime and precision of the student.

The functions run in a process that keeps to one core (`one_core`).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.inference.runtime import Opened, PrecisionChoice, RuntimeChoice
from pipeline.kit.roofline import measured_peaks, work_of
from pipeline.speed.readings import Reading
from pipeline.tracking.tables import VideoTables
from pipeline.tracking.track_video import (
    Spent,
    TrackSettings,
    batch_window,
    open_runtime,
    tracked_windows,
)
from pipeline.tracking.whole_video import track_video
from pipeline.video.decode import FrameStream
from pipeline.video.info import VideoInfo
from pipeline.video.limits import Limits

Kind = Literal["torch", "exact", "fast"]
"""The student in PyTorch, in OpenVINO in float32, and with its dense part in bfloat16."""
KINDS: tuple[Kind, ...] = ("torch", "exact", "fast")


def track_settings(weights: str, kind: Kind, info: VideoInfo, frames: int) -> TrackSettings:
    """Settings of a worker on one core that tracks the first `frames` frames of a video."""
    return TrackSettings(
        weights,
        runtime="torch" if kind == "torch" else "openvino",
        precision="fast" if kind == "fast" else "exact",
        first_picture=(info.height, info.width),
        decode_threads=1,
        limits=Limits(max_frames=frames),
    )


def opened(settings: TrackSettings) -> Opened:
    """The student, loaded once in this process.

    Raises:
        CheckpointError: The weights cannot be used.
        RuntimeUnavailable: This machine has no such runtime.
    """
    return _opened(settings.weights, settings.runtime, settings.precision, settings.first_picture)


@lru_cache(maxsize=8)
def _opened(
    weights: str,
    runtime: RuntimeChoice,
    precision: PrecisionChoice,
    picture: tuple[int, int] | None,
) -> Opened:
    settings = TrackSettings(weights, runtime=runtime, precision=precision, first_picture=picture)
    return open_runtime(settings)


def runtime_name(settings: TrackSettings) -> str:
    """What the student runs in, with the version."""
    return opened(settings).runtime


def path_reading(info: VideoInfo, settings: TrackSettings) -> Reading:
    """Track the first frames of a video as a worker does, but for publishing.

    Parts: `decode`, `encode` and `step`, and of their time that of the graphs.
    """
    student = opened(settings).model
    with _graph_clocks() as graphs, VideoTables(info) as tables:
        wall, core = time.perf_counter(), time.process_time()
        row = track_video(student, info, settings, tables)
        wall, core = time.perf_counter() - wall, time.process_time() - core
    frames = row["frames_decoded"]
    parts = {
        "decode": row["decode_busy_s"],
        "encode": row["encode_s"],
        "step": row["step_s"],
        **{f"graph {name}": seconds for name, seconds in graphs.items()},
    }
    return Reading(frames, wall, core, {k: 1000 * s / frames for k, s in parts.items()})


def decode_reading(info: VideoInfo, settings: TrackSettings) -> Reading:
    """Decode the same frames on the canvas of the student, and cut their patches, no more."""
    opened(settings)
    wall, core = time.perf_counter(), time.process_time()
    with _stream(info, settings) as stream:
        frames = sum(1 for _ in stream)
    return Reading(frames, time.perf_counter() - wall, time.process_time() - core)


def model_reading(info: VideoInfo, settings: TrackSettings) -> Reading:
    """Encode and step the same frames, which lie in memory."""
    student, windows = opened(settings).model, _windows(info, settings)
    state = student.initial_state(1)
    wall, core = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        for window in windows:
            _, state = student.track(student.encode(*window), state)
    wall, core = time.perf_counter() - wall, time.process_time() - core
    return Reading(sum(len(images) for images, _, _ in windows), wall, core)


@dataclass(frozen=True, slots=True)
class CoreLimit:
    """What one core could do at best: nothing but the operations of encoding, at its peak.

    Attributes:
        gflops: 1e9 floating-point operations of encoding a frame, of convolutions and matrix
            products; a multiplication and its addition are two.
        peak: 1e9 operations a second of a matrix product, by `float32` and `bfloat16`.
    """

    gflops: float
    peak: dict[str, float]

    def encode_ms(self, kind: Kind) -> float:
        """Least milliseconds of encoding a frame; for `fast`, as if all of it were bfloat16."""
        return 1000 * self.gflops / self.peak["bfloat16" if kind == "fast" else "float32"]


def core_limit(info: VideoInfo, settings: TrackSettings) -> CoreLimit:
    """Count the operations of encoding on the canvas of a video, and measure the core's peak.

    Args:
        info: the video.
        settings: of the student in PyTorch, where each operation can be seen.
    """
    student = opened(settings).model
    window = _windows(info, settings)[0]
    work = work_of(lambda: student.encode(*window))
    peaks = measured_peaks(torch.device("cpu"), tf32=False)
    return CoreLimit(
        gflops=sum(work.flops.values()) / len(window[0]) / 1e9,
        peak={name: rate / 1e9 for name, rate in peaks.flops.items()},
    )


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of tracks, sorted by frame and track.

    Attributes:
        keys: (R, 2) frame and track.
        boxes: (R, 4) x, y, w, h in pixels of the source.
    """

    keys: np.ndarray[Any, Any]
    boxes: np.ndarray[Any, Any]


def path_rows(info: VideoInfo, settings: TrackSettings) -> Rows:
    """The rows of tracks of the first frames of a video."""
    columns: dict[str, list[np.ndarray[Any, Any]]] = defaultdict(list)
    windows = tracked_windows(opened(settings).model, info, settings, Spent())
    with closing(windows):
        for rows in windows:
            for name in ("frame_index", "track_id", "x", "y", "w", "h"):
                columns[name].append(rows.tracks[name])
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    return Rows(
        np.stack([joined["frame_index"], joined["track_id"]], axis=1),
        np.stack([joined[name] for name in "xywh"], axis=1),
    )


def difference(rows: Rows, others: Rows) -> dict[str, Any]:
    """How far the rows of one runtime are from those of another.

    Returns:
        `rows`: number of rows of both. `same_ids`: whether the same tracks are seen on every
        frame. `other_rows`: rows that have no partner with their frame and track. `pixels`:
        greatest difference of a coordinate between partners, 0 without any; large where two
        tracks have changed their ids. `pixels_median`: of the greatest difference of each pair.
    """
    first = {tuple(key): box for key, box in zip(rows.keys.tolist(), rows.boxes, strict=True)}
    second = {tuple(key): box for key, box in zip(others.keys.tolist(), others.boxes, strict=True)}
    both = first.keys() & second.keys()
    alone = len(first) + len(second) - 2 * len(both)
    apart = [float(np.abs(first[k] - second[k]).max()) for k in both] or [0.0]
    return {
        "rows": [len(first), len(second)],
        "same_ids": alone == 0,
        "other_rows": alone,
        "pixels": max(apart),
        "pixels_median": float(np.median(apart)),
    }


def _stream(info: VideoInfo, settings: TrackSettings) -> FrameStream:
    config = opened(settings).model.config
    return FrameStream(
        info,
        *config.canvas_for(info.height, info.width),
        settings.queue_size,
        settings.limits,
        threads=settings.decode_threads,
    )


@lru_cache(maxsize=1)
def _windows(info: VideoInfo, settings: TrackSettings) -> list[tuple[Tensor, Tensor, Tensor]]:
    windows = []
    with _stream(info, settings) as stream:
        frames, box = iter(stream), stream.letterbox
        while window := list(islice(frames, settings.window)):
            windows.append(batch_window(window, box))
    return windows


@contextmanager
def _graph_clocks() -> Iterator[dict[str, float]]:
    """Seconds of the graphs `dense`, `detect` and `step` while the body runs; none in PyTorch."""
    from pipeline.inference.compiled import CompiledGraph

    seconds: dict[str, float] = {}
    plain = CompiledGraph.run

    def run(graph: CompiledGraph, inputs: Any, outputs: Any) -> None:
        mark = time.perf_counter()
        plain(graph, inputs, outputs)
        part = "dense" if "image" in inputs else "step" if "logits" in inputs else "detect"
        seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - mark

    CompiledGraph.run = run  # type: ignore[assignment, method-assign]
    try:
        yield seconds
    finally:
        CompiledGraph.run = plain  # type: ignore[method-assign]
