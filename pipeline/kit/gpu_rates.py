"""Speed of tracking on a GPU: by videos at once and precision, and what the GPU does meanwhile."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.track.frames import FrameResult, TrackableWindow
from model.track.rules import TrackRules
from model.track.tracker import Tracker
from model.track.tracks import TrackState
from pipeline.inference.batch_functions import Canvas
from pipeline.inference.batched_model import BatchedModel, WindowAndState
from pipeline.inference.runtime import Runtime
from pipeline.inference.stream_batcher import StreamBatcher
from pipeline.inference.stream_plan import measured_rate

_EAGER = 0.05  # threshold


@dataclass(frozen=True, slots=True)
class Footage:
    """Frames of a real video, as `Tracker.encode` takes them, on the host."""

    images: Tensor
    valid: Tensor
    patches: Tensor

    @property
    def canvas(self) -> Canvas:
        """Height and width of the canvas."""
        return int(self.images.shape[2]), int(self.images.shape[3])

    def windows(self, length: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Windows from a frame on, again from the first after the last, without end."""
        for number in count():
            first = start + number * length
            index = torch.arange(first, first + length) % len(self.images)
            # Copied as decoded frames are; pictures stay colours last in memory.
            images = self.images.permute(0, 2, 3, 1)[index].permute(0, 3, 1, 2)
            yield images, self.valid[index], self.patches[index]


def model_rates(model: BatchedModel, canvas: Canvas, window: int, seconds: float) -> dict[str, Any]:
    """Speed of full batches without other work in Python.

    Returns:
        frames_per_second: encoding and stepping. encode_ms, step_ms: of a batch, and of one step
        of all its videos. memory_mib: greatest GPU memory so far, None on a CPU.
    """
    device = model.initial_state(1).content.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    rate = measured_rate(model, canvas, window, seconds)
    encode, step = model.calls(canvas)
    with torch.inference_mode():
        times = [_milliseconds(call.run, device, seconds / 2) for call in (encode, step)]
    memory = torch.cuda.max_memory_reserved(device) / 2**20 if device.type == "cuda" else None
    return {
        "frames_per_second": rate,
        "encode_ms": times[0],
        "step_ms": times[1],
        "memory_mib": memory,
        "problems": list(model.problems),
    }


def stream_rate(
    model: BatchedModel, footage: Footage, window: int, streams: int, seconds: float
) -> dict[str, Any]:
    """Speed of threads that each track a video, as in a worker without decoding and rows.

    Returns:
        frames_per_second, and gpu_busy: share of the time in which the GPU ran a kernel or a copy,
        by torch's profiler; None where it sees no GPU.
    """
    batcher = StreamBatcher(model)
    try:
        _run_streams(batcher, footage, window, streams, seconds / 4)  # to warm up
        frames, taken = _run_streams(batcher, footage, window, streams, seconds)
        busy = _busy_share(lambda: _run_streams(batcher, footage, window, streams, seconds / 4))
    finally:
        batcher.close()
    return {"streams": streams, "frames_per_second": frames / taken, "gpu_busy": busy}


class OnDevice:
    """A plain tracker whose frames come from the host, to compare with."""

    def __init__(self, tracker: Tracker) -> None:
        """Take a tracker on its device."""
        self.config = tracker.config
        self._tracker = tracker

    def initial_state(self, batch: int) -> TrackState:
        """See `Tracker.initial_state`."""
        return self._tracker.initial_state(batch)

    def encode(self, images: Tensor, valid: Tensor, patches: Tensor) -> TrackableWindow:
        """See `Tracker.encode`."""
        device = self._tracker.gate.bias.device
        return self._tracker.encode(images.to(device), valid.to(device), patches.to(device))

    def track(
        self,
        encoded: TrackableWindow,
        state: TrackState,
        rules: TrackRules | None = None,
        carried: Sequence[int] | None = None,
    ) -> tuple[list[FrameResult], TrackState]:
        """See `Tracker.track`."""
        return self._tracker.track(encoded, state, rules, carried)


def alone(runtime: Runtime, footage: Footage, window: int, frames: int) -> list[FrameResult]:
    """Results of at least so many frames of the footage, as the only video."""
    found: list[FrameResult] = []
    rules = _eager(runtime)
    with torch.inference_mode():
        state = runtime.initial_state(1)
        for given in footage.windows(window):
            results, state = runtime.track(runtime.encode(*given), state, rules)
            found += results
            if len(found) >= frames:
                break
    return found


def beside(model: BatchedModel, footage: Footage, window: int, frames: int) -> list[FrameResult]:
    """The same, in full batches with other parts of the footage."""
    videos = [footage.windows(window, start=5 * row) for row in range(model.rows)]
    states = [model.initial_state(1) for _ in videos]
    rules = _eager(model)
    found: list[FrameResult] = []
    while len(found) < frames:
        encoded, _ = model.encode([model.stage(*next(video)) for video in videos])
        pairs = zip(encoded, states, strict=True)
        tracked, wait = model.track([WindowAndState(e, state, rules) for e, state in pairs])
        wait()
        states = [state for _, state in tracked]
        found += tracked[0][0]
    return found


def compared(found: Sequence[FrameResult], wanted: Sequence[FrameResult]) -> dict[str, float]:
    """How results of the same frames compare.

    Returns:
        same_ids: share of the frames with the same identities. boxes: boxes of identities that
        both have in a frame. boxes_px: greatest difference of their coordinates, in pixels of the
        canvas.
    """
    same, count, worst = 0, 0, 0.0
    for one, other in zip(found, wanted, strict=True):
        boxes, others = _boxes(one), _boxes(other)
        same += boxes.keys() == others.keys()
        shared = boxes.keys() & others.keys()
        count += len(shared)
        worst = max([worst, *(float(np.abs(boxes[i] - others[i]).max()) for i in shared)])
    return {"same_ids": same / len(found), "boxes": count, "boxes_px": worst}


def _eager(model: Runtime | BatchedModel) -> TrackRules:
    """Rules by which many tracks are seen, so that there is much to compare on any footage."""
    return replace(TrackRules.of(model.config), birth_threshold=_EAGER, keep_threshold=_EAGER)


def _boxes(result: FrameResult) -> dict[int, np.ndarray]:
    ids = result.track_id[0].tolist()
    boxes = result.boxes[0].float().cpu().numpy()
    return {number: box for number, box in zip(ids, boxes, strict=True) if number >= 0}


def _run_streams(
    batcher: StreamBatcher, footage: Footage, window: int, streams: int, seconds: float
) -> tuple[int, float]:
    """Frames tracked by so many threads, and the seconds that they took."""
    started = time.perf_counter()
    ended = threading.Event()

    def one(number: int) -> int:
        state, frames = batcher.initial_state(1), 0
        rules = TrackRules.of(batcher.config)
        with torch.inference_mode(), batcher.stream():
            for given in footage.windows(window, start=3 * number):
                results, state = batcher.track(batcher.encode(*given), state, rules)
                frames += len(results)
                if ended.is_set() or time.perf_counter() - started > seconds:
                    return frames
        return frames

    with ThreadPoolExecutor(streams) as pool:
        frames = sum(pool.map(one, range(streams)))
    return frames, time.perf_counter() - started


def _busy_share(run: Callable[[], object]) -> float | None:
    """Share of the time of a call in which the GPU is busy."""
    activities = torch.profiler.supported_activities()
    if torch.profiler.ProfilerActivity.CUDA not in activities or not torch.cuda.is_available():
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        wall_us = 1e6 * (time.perf_counter() - started)
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    ]
    return covered(spans) / wall_us if spans else None


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of the union of spans (start, end)."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _milliseconds(run: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Mean time of a call, each waited for, over about so many seconds."""
    started, runs = time.perf_counter(), 0
    while not runs or time.perf_counter() - started < seconds:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        runs += 1
    return 1000 * (time.perf_counter() - started) / runs
