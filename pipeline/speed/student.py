"""Cost of the student in PyTorch: parameters, GFLOPs, and the time of each module on a video."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from model.net.quality import frame_statistics
from model.teach.tower import RANDOM, load_tower
from model.track.frames import EncodedFrames
from model.track.tracker import Tracker
from pipeline.speed.cost import count_gflops, count_parameters
from pipeline.tracking.track_video import TrackSettings, batch_window
from pipeline.video.decode import FrameStream
from pipeline.video.info import VideoInfo

Inputs = tuple[Tensor, Tensor, Tensor]
"""A window of frames as `Tracker.encode` takes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentCost:
    """Size of the student, and its time by module.

    Attributes:
        parameters_m: Millions of parameters by module, and `total`.
        gflops: 1e9 floating-point operations a frame, a multiplication and its addition counted
            as two: `encode`, `step`, `total`.
        frames: Frames that the times were measured on.
        milliseconds: Of a frame, in windows: `encode` and `step`, and `tracker` both; `semantics`
            the branch and its projection for the decoders; `quality` statistics, quality and
            gate; `vit_b32` a CLIP ViT-B/32 image tower (random weights) at its own 224 x 224,
            `vit_b32_canvas` on the tracker's canvas.
        semantics_cheaper: Time of each of both towers, in units of the branch's.
        semantics_share: The branch's share of the tracker's time.
        encode_share: Share of encoding's time by module; `statistics` are those of a frame's
            patches, `rest` is the time outside of modules.
    """

    parameters_m: dict[str, float]
    gflops: dict[str, float]
    frames: int
    milliseconds: dict[str, float]
    semantics_cheaper: dict[str, float]
    semantics_share: float
    encode_share: dict[str, float]


def student_cost(
    tracker: Tracker, info: VideoInfo, settings: TrackSettings, frames: int
) -> StudentCost:
    """Measure the student in PyTorch, on as many threads as torch is set to.

    Args:
        tracker: The student, on the device of the settings.
        info: The video.
        settings: Window, queue and device.
        frames: Frames of the video that are used, at most.

    Raises:
        DecodeError: No frame could be read.
        StorageError: The video could not be read.
    """
    windows = _windows(tracker, info, settings, frames)
    encode_s, step_s, encode_share = _model(tracker, windows, settings.device)
    seen = sum(len(images) for images, _, _ in windows)
    towers = _teacher_seconds(tracker, settings)
    encode_ms, step_ms = 1000 * encode_s / seen, 1000 * step_s / seen
    costs = {
        "encode": encode_ms,
        "step": step_ms,
        "tracker": encode_ms + step_ms,
        "semantics": encode_ms * sum(encode_share[k] for k in ("semantics", "semantic_memory")),
        "quality": encode_ms * sum(encode_share[k] for k in ("quality", "statistics", "gate")),
        **{name: 1000 * seconds for name, seconds in towers.items()},
    }
    return StudentCost(
        parameters_m=count_parameters(tracker),
        gflops=count_gflops(tracker),
        frames=seen,
        milliseconds=costs,
        semantics_cheaper={name: costs[name] / costs["semantics"] for name in towers},
        semantics_share=costs["semantics"] / costs["tracker"],
        encode_share=encode_share,
    )


def _stream(tracker: Tracker, info: VideoInfo, settings: TrackSettings) -> FrameStream:
    canvas = tracker.config.canvas_for(info.height, info.width)
    return FrameStream(info, *canvas, settings.queue_size, settings.limits)


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
    teacher = load_tower("ViT-B-32", RANDOM, settings.device)
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
