"""How a worker of `vsdmot track` shares its student among videos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from pipeline.inference.batched_model import BatchedModel
from pipeline.inference.precision import Precision
from pipeline.inference.stream_batcher import OneAtATime, SharedRuntime, StreamBatcher
from pipeline.inference.stream_plan import StreamPlan, limit_memory, measured_plan, planned
from pipeline.runtime.machine import usable_cores
from pipeline.runtime.settings import ClusterConfig
from pipeline.tracking.track_video import TrackSettings, open_runtime, open_tracker

# A Ray actor works in a thread, and `keep_large_blocks` does not reach the glibc arena of a thread.
# Without these variables the pages of each large tensor are mapped and cleared again, which takes a
# third of the time of encoding. They have to be set before the process starts, so they are part of
# the runtime environment, which existing clusters use too.
ACTOR_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
}
"""Variables of the processes that track, beside those of the driver."""


@dataclass(frozen=True, slots=True)
class Shared:
    """A student for the videos of a worker.

    Attributes:
        model: Called by the threads of the videos.
        runtime: As of `Opened`.
        settings: For `track_video`: the device is where `model` takes frames.
    """

    model: SharedRuntime
    runtime: str
    settings: TrackSettings


def stream_plan(settings: TrackSettings, cluster: ClusterConfig) -> StreamPlan:
    """Choose how many videos a worker tracks at once; on a GPU this takes seconds.

    Args:
        settings: Settings of the workers, with the device of this process.
        cluster: `streams` and `gpu_share` are used.

    Raises:
        GpuMemoryError: The GPU has no memory for one video.
        CheckpointError: The weights cannot be used.
    """
    if settings.device == "cpu":
        return StreamPlan(cluster.streams or 1)
    if cluster.streams is not None:
        reason = "the number of videos at once is that of cluster.streams"
        return planned(cluster.streams, settings.window, cluster.gpu_share, reason)
    config = open_tracker(settings).config
    return measured_plan(
        lambda: open_tracker(settings),
        (config.input_height, config.input_width),  # no canvas of a video is larger
        settings.window,
        _precision(settings),
        cluster.gpu_share,
    )


def open_shared(
    settings: TrackSettings,
    plan: StreamPlan,
    notice: Callable[[str], None] = lambda text: None,
) -> Shared:
    """Load the student for the threads of a worker; errors and other arguments as `open_runtime`.

    Args:
        settings: Settings of the worker.
        plan: Sizes of batches on a GPU.
        notice: See `open_runtime`.
    """
    opened = open_runtime(settings, notice)
    if settings.device == "cpu":
        return Shared(OneAtATime(opened.model), opened.runtime, settings)
    # Imported here, because it is slow, and a worker on a CPU seldom needs it.
    from model.track.tracker import Tracker

    if not isinstance(opened.model, Tracker):
        return Shared(OneAtATime(opened.model), opened.runtime, settings)
    device = torch.device(settings.device)
    limit_memory(device, plan.gpu_share)
    model = BatchedModel(opened.model, plan.rows, plan.frames, _precision(settings))
    if settings.first_picture is not None:  # before other threads use the GPU
        model.prepare(model.config.canvas_for(*settings.first_picture))
    name = f"torch {torch.__version__}, {model.precision} on {torch.cuda.get_device_name(device)}"
    runtime = "; ".join([f"{name}, {plan.streams} videos at once", *model.problems])
    # Frames wait on the host; the model takes them to the GPU. The decoders share the cores.
    threads = max(1, usable_cores() // plan.streams)
    on_host = replace(settings, device="cpu", decode_threads=threads)
    return Shared(StreamBatcher(model), runtime, on_host)


def _precision(settings: TrackSettings) -> Precision:
    return "bf16" if settings.precision == "fast" else "fp32"
