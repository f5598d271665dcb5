"""Cost of the student: parameters, GFLOPs, and the time of each stage on a video."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from model.net.quality import PATCH, PATCHES, frame_statistics
from model.teach.teacher import RANDOM, load_teacher
from model.track.frames import EncodedFrames
from model.track.tracker import Tracker
from pipeline.tracking.tables import VideoTables
from pipeline.tracking.track_video import TrackSettings, batch_window, track_video
from pipeline.video.decode import FrameStream
from pipeline.video.info import VideoInfo

Inputs = tuple[Tensor, Tensor, Tensor]
"""A window of frames as `Tracker.encode` takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Figures of one run on one video.

    Attributes:
        parameters_m: Millions of parameters by module, and `total`.
        gflops: 1e9 floating-point operations a frame, a multiplication and its addition counted
            as two: `encode`, `step`, `total`.
        frames: Frames that `decode`, `path` and `model` were measured on.
        frames_per_second: `decode`, `encode`, `step` and `model` (encode and step) each alone, and
            `path`: all of them together, as in a worker of `vsdmot track` without writing.
        to_decode: The same as multiples of `decode`.
        times_real_time: Seconds of footage tracked in a second.
        path_share: Share of the path's time in which it waits for frames, encodes, steps.
        milliseconds: Of a frame, in windows: `semantics` the branch and its projection for the
            decoders; `quality` statistics, quality and gate; `tracker` all of it; `vit_b32` a
            CLIP ViT-B/32 image tower (random weights) at its own 224 x 224, `vit_b32_canvas` on
            the tracker's canvas.
        semantics_cheaper: Time of each of both towers, in units of the branch's.
        semantics_share: The branch's share of the tracker's time.
        encode_share: Share of encoding's time by module; `statistics` are those of a frame's
            patches, `rest` is the time outside of modules.
        peak_rss_mb: Peak memory of this process in MB, measuring included.
        machine: Cores, versions, threads; `load`: processes that were busy before, over a minute.
    """

    parameters_m: dict[str, float]
    gflops: dict[str, float]
    frames: dict[str, int]
    frames_per_second: dict[str, float]
    to_decode: dict[str, float]
    times_real_time: float
    path_share: dict[str, float]
    encode_share: dict[str, float]
    milliseconds: dict[str, float]
    semantics_cheaper: dict[str, float]
    semantics_share: float
    peak_rss_mb: float
    machine: dict[str, Any]


def bench(
    tracker: Tracker,
    info: VideoInfo,
    settings: TrackSettings,
    frames: int,
    say: Callable[[str], None] = lambda stage: None,
) -> Bench:
    """Measure everything, one thing after the other.

    The student runs on as many threads as torch is set to; decoding takes what libav takes.

    Args:
        tracker: The student, on the device of the settings.
        info: The video; decode and path take all of it.
        settings: Window, queue and device.
        frames: Frames of the video that the model alone is measured on, at most.
        say: Called with the name of each measure before it starts.

    Raises:
        DecodeError: No frame could be read.
        StorageError: The video could not be read to its end.
    """
    machine = _machine(settings.device)  # first, so that the load is that of other processes
    say("GFLOPs")
    gflops = count_gflops(tracker)
    say("decode alone")
    decoded, decode_s = _decode(tracker, info, settings)
    say("model alone")
    windows = _windows(tracker, info, settings, frames)
    encode_s, step_s, encode_share = _model(tracker, windows, settings.device)
    seen = sum(len(images) for images, _, _ in windows)
    say("ViT-B/32")
    towers = _teacher_seconds(tracker, settings)
    say("the whole path")
    started = time.perf_counter()
    with VideoTables(info) as tables:
        row = track_video(tracker, info, settings, tables)
    path_s = time.perf_counter() - started
    rates = {
        "decode": decoded / decode_s,
        "encode": seen / encode_s,
        "step": seen / step_s,
        "model": seen / (encode_s + step_s),
        "path": row["frames_decoded"] / path_s,
    }
    frame_ms = 1000 * encode_s / seen
    costs = {
        "semantics": frame_ms * sum(encode_share[k] for k in ("semantics", "semantic_memory")),
        "quality": frame_ms * sum(encode_share[k] for k in ("quality", "statistics", "gate")),
        "tracker": 1000 / rates["model"],
        **{name: 1000 * seconds for name, seconds in towers.items()},
    }
    stages = {"wait": "decode_wait_s", "encode": "encode_s", "step": "step_s"}
    return Bench(
        parameters_m=count_parameters(tracker),
        gflops=gflops,
        frames={"decode": decoded, "model": seen, "path": row["frames_decoded"]},
        frames_per_second=rates,
        to_decode={name: rate / rates["decode"] for name, rate in rates.items()},
        times_real_time=row["video_s"] / path_s,
        path_share={name: row[key] / path_s for name, key in stages.items()},
        encode_share=encode_share,
        milliseconds=costs,
        semantics_cheaper={name: costs[name] / costs["semantics"] for name in towers},
        semantics_share=costs["semantics"] / costs["tracker"],
        peak_rss_mb=_peak_rss_mb(),
        machine=machine,
    )


def count_parameters(tracker: Tracker) -> dict[str, float]:
    """Millions of parameters by module, and their total."""
    counts = {
        name: sum(p.numel() for p in module.parameters()) / 1e6
        for name, module in tracker.named_children()
    }
    return counts | {"total": sum(p.numel() for p in tracker.parameters()) / 1e6}


@torch.no_grad()
def count_gflops(tracker: Tracker) -> dict[str, float]:
    """GFLOPs a frame of encoding and stepping.

    Convolutions and matrix products count, as is usual; elementwise operations and the samples of
    deformable attention do not. Slots are fixed, so all frames cost the same.
    """
    config, device = tracker.config, tracker.gate.bias.device
    height, width = config.input_height, config.input_width
    inputs = (
        torch.zeros((1, 3, height, width), dtype=torch.uint8, device=device),
        torch.tensor([[height, width]], device=device),
        torch.zeros((1, PATCHES, PATCH, PATCH), dtype=torch.uint8, device=device),
    )
    with FlopCounterMode(display=False) as encoding:
        encoded = tracker.encode(*inputs)
    state = tracker.initial_state(1)
    with FlopCounterMode(display=False) as stepping:
        tracker.step(encoded, state)
    encode, step = (counter.get_total_flops() / 1e9 for counter in (encoding, stepping))
    return {"encode": encode, "step": step, "total": encode + step}


def _stream(tracker: Tracker, info: VideoInfo, settings: TrackSettings) -> FrameStream:
    config = tracker.config
    return FrameStream(info, config.input_height, config.input_width, settings.queue_size)


def _decode(tracker: Tracker, info: VideoInfo, settings: TrackSettings) -> tuple[int, float]:
    """Frames and seconds of decoding, letterboxing and cutting patches alone."""
    started = time.perf_counter()
    with _stream(tracker, info, settings) as stream:
        frames = sum(1 for _ in stream)
    return frames, time.perf_counter() - started


def _windows(
    tracker: Tracker, info: VideoInfo, settings: TrackSettings, frames: int
) -> list[Inputs]:
    """The first frames in memory, so that no decoder runs beside the model."""
    windows = []
    with _stream(tracker, info, settings) as stream:
        box, rest = stream.letterbox, islice(stream, frames)
        while window := list(islice(rest, settings.window)):
            windows.append(batch_window(window, box))
    return windows


@torch.inference_mode()
def _model(
    tracker: Tracker, windows: list[Inputs], device: str
) -> tuple[float, float, dict[str, float]]:
    """Seconds of encoding, seconds of stepping, and the shares of encoding's time."""

    def encode(window: Inputs) -> EncodedFrames:
        images, valid, patches = (tensor.to(device) for tensor in window)
        return tracker.encode(images, valid, patches)

    # The first call is not measured, because it chooses kernels and fills caches.
    tracker.track(encode(windows[0]), tracker.initial_state(1))
    encode_s = step_s = 0.0
    state = tracker.initial_state(1)
    for window in windows:
        mark = _now(device)
        encoded = encode(window)
        encode_s += _now(device) - mark
        mark = _now(device)
        _, state = tracker.track(encoded, state)
        step_s += _now(device) - mark
    return encode_s, step_s, _encode_shares(tracker, windows, encode, device)


def _teacher_seconds(tracker: Tracker, settings: TrackSettings) -> dict[str, float]:
    """Seconds a frame of a ViT-B/32, in windows as the tracker's, best of three."""
    teacher = load_teacher("ViT-B-32", RANDOM, settings.device)
    config = tracker.config
    sizes = {"vit_b32": (224, 224), "vit_b32_canvas": (config.input_height, config.input_width)}
    seconds = {}
    for name, size in sizes.items():
        images = torch.zeros((settings.window, 3, *size), dtype=torch.uint8, device=settings.device)
        valid = torch.tensor([size] * settings.window, device=settings.device)
        teacher(images, valid)
        marks = []
        for _ in range(3):
            started = _now(settings.device)
            teacher(images, valid)
            marks.append(_now(settings.device) - started)
        seconds[name] = min(marks) / settings.window
    return seconds


def _encode_shares(
    tracker: Tracker, windows: list[Inputs], encode: Callable[[Inputs], EncodedFrames], device: str
) -> dict[str, float]:
    """Shares of encoding's time, in a second pass: on a GPU the clocks of modules cost time."""
    total = statistics = 0.0
    with _clocks(tracker, device) as seconds:
        for window in windows:
            mark = _now(device)
            encode(window)
            total += _now(device) - mark
    for _, _, patches in windows:
        moved = patches.to(device)
        mark = _now(device)
        frame_statistics(moved)
        statistics += _now(device) - mark
    parts = {name: s / total for name, s in (dict(seconds) | {"statistics": statistics}).items()}
    return parts | {"rest": max(0.0, 1 - sum(parts.values()))}


@contextmanager
def _clocks(tracker: Tracker, device: str) -> Iterator[dict[str, float]]:
    """Seconds spent in each direct child of the tracker while the body runs."""
    seconds: dict[str, float] = defaultdict(float)

    def start(module: nn.Module, arguments: object) -> None:
        marks[module] = _now(device)

    def stop(module: nn.Module, arguments: object, output: object) -> None:
        seconds[names[module]] += _now(device) - marks[module]

    names = {module: name for name, module in tracker.named_children()}
    marks: dict[nn.Module, float] = {}
    with ExitStack() as stack:
        for module in names:
            stack.callback(module.register_forward_pre_hook(start).remove)
            stack.callback(module.register_forward_hook(stop).remove)
        yield seconds


def _now(device: str) -> float:
    """The time after all work of the device so far is done."""
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _peak_rss_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _machine(device: str) -> dict[str, Any]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "system": platform.platform(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "cores_usable": usable,
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
    }


def _cpu_name() -> str:
    """The processor's name if the system gives it, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
