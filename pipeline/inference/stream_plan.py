"""How many videos a GPU tracks at once: chosen by a short measurement before the work starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from model.net.quality import PATCH, PATCHES
from model.track.rules import TrackRules
from pipeline.inference.batch_functions import Canvas
from pipeline.inference.batched_model import BatchedModel, StagedWindow, WindowAndState
from pipeline.inference.precision import Precision
from pipeline.inference.runtime import RuntimeUnavailable

if TYPE_CHECKING:
    from model.track.tracker import Tracker

_ROWS = (1, 2, 4, 8, 16, 32)
_GAIN = 1.05  # a batch of twice the size has to be this much faster to be chosen
_MOST = 0.7  # of the GPU's memory; the rest is for other canvases and for windows under way
_SECONDS = 0.5  # of measuring each size
_LEAST_RUNS = 3
# To say what one stream needs. Of activations, in float32, for each pixel of the canvas and frame
# of a batch, as measured on a CPU; and of the context and the libraries of CUDA.
_FRAME_BYTES, _CONTEXT_BYTES = 750, 500 * 2**20
_MIB = 2**20


class GpuMemoryError(RuntimeUnavailable):
    """The GPU has no memory for one stream; the message has need, have and remedy."""


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """How a worker shares one student among videos.

    Attributes:
        streams: Videos that a worker tracks at once.
        rows: Windows that are joined to a batch on a GPU.
        frames: Frames of a batch.
        gpu_share: Share of a GPU that the worker has; 0 on a CPU.
        reason: How this was chosen, for people.
    """

    streams: int = 1
    rows: int = 1
    frames: int = 8
    gpu_share: float = 0.0
    reason: str = ""


ONE_AT_A_TIME = StreamPlan()
"""The plan of a worker on a CPU."""


def planned(streams: int, window: int, gpu_share: float, reason: str) -> StreamPlan:
    """The plan for a number of videos: half of them make a batch, see `StreamBatcher`."""
    rows = (streams + 1) // 2
    return StreamPlan(streams, rows, rows * window, gpu_share, reason)


def measured_plan(
    load: Callable[[], Tracker],
    canvas: Canvas,
    window: int,
    precision: Precision,
    gpu_share: float,
) -> StreamPlan:
    """Measure batches of rising size, and take the last that was worth it.

    Args:
        load: Loads the student on the GPU.
        canvas: Height and width of the pictures on the canvas.
        window: Frames of one video in a batch.
        precision: Of the dense part.
        gpu_share: Share of the GPU's memory that may be used.

    Raises:
        GpuMemoryError: Not even one video fits.
    """
    device = load().gate.bias.device
    limit_memory(device, gpu_share)
    best, taken = (0, 0.0), 0
    for rows in _ROWS:
        try:
            rate = measured_rate(BatchedModel(load(), rows, rows * window, precision), canvas,
                                 window, _SECONDS)  # fmt: skip
        except torch.OutOfMemoryError as error:
            if rows == 1:
                raise GpuMemoryError(_too_small(load(), canvas, window, device)) from error
            break
        reserved = _reserved(device)
        if rate < _GAIN * best[1] or (rows > 1 and reserved > _MOST * gpu_share * _total(device)):
            break
        best, taken = (rows, rate), reserved
    rows, rate = best
    reason = (
        f"the GPU takes batches of {rows} windows of {window} frames: {rate:.0f} frames/s measured "
        f"(encode and step), {taken / _MIB:.0f} MiB of its memory"
    )
    return planned(2 * rows, window, gpu_share, reason)


def limit_memory(device: torch.device, gpu_share: float) -> None:
    """Bound this process to a share of the GPU's memory, and forget earlier peaks."""
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(gpu_share, device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def measured_rate(model: BatchedModel, canvas: Canvas, window: int, seconds: float) -> float:
    """Frames a second of encoding and stepping full batches, copies to the device included."""
    batch = rounds(model, canvas, window)
    next(batch)  # kernels are chosen, and recorded
    taken = 0
    started = time.perf_counter()
    for _ in batch:
        taken += 1
        if taken >= _LEAST_RUNS and time.perf_counter() - started > seconds:
            break
    return taken * model.rows * window / (time.perf_counter() - started)


def rounds(model: BatchedModel, canvas: Canvas, window: int) -> Iterator[None]:
    """Without end: encode and track one window of as many videos as the model has rows."""
    images = torch.randint(0, 256, (window, *canvas, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    valid = torch.tensor([canvas] * window)
    patches = torch.randint(0, 256, (window, PATCHES, PATCH, PATCH), dtype=torch.uint8)
    states = [model.initial_state(1) for _ in range(model.rows)]
    rules = TrackRules.of(model.config)

    def staged() -> list[StagedWindow]:
        return [model.stage(images, valid, patches) for _ in range(model.rows)]

    ahead = staged()
    while True:
        encoded, _ = model.encode(ahead)
        pairs = zip(encoded, states, strict=True)
        tracked, wait = model.track([WindowAndState(e, state, rules) for e, state in pairs])
        states = [state for _, state in tracked]
        ahead = staged()  # copied while the GPU works on those before
        wait()
        yield


def _reserved(device: torch.device) -> int:
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0


def _total(device: torch.device) -> float:
    return torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else float("inf")


def _too_small(tracker: Tracker, canvas: Canvas, window: int, device: torch.device) -> str:
    weights = sum(p.numel() * p.element_size() for p in tracker.parameters())
    need = _CONTEXT_BYTES + weights + _FRAME_BYTES * canvas[0] * canvas[1] * window
    free, total = torch.cuda.mem_get_info(device)
    return (
        f"{torch.cuda.get_device_name(device)} has too little memory for one video: about "
        f"{need / _MIB:.0f} MiB are needed in windows of {window} frames, and {free / _MIB:.0f} of "
        f"{total / _MIB:.0f} MiB are free. End other programs on the GPU, give a smaller "
        "decode.window or a larger cluster.gpu_share, or hide the GPU with CUDA_VISIBLE_DEVICES="
    )
