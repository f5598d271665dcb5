"""Run segments: on Ray Data with one actor a GPU or CPU, or in this process."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray
import torch
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import GetTimeoutError, RayError

from pipeline.plan import Segment
from pipeline.progress import FrameCounter, RemoteReport, RunDisplay
from pipeline.track import SegmentResult, TrackSettings, VideoTracker, pack_info, unpack_results

_POLL_S = 0.5


def run_in_process(
    segments: Sequence[Segment], settings: TrackSettings, display: RunDisplay
) -> Iterator[SegmentResult]:
    """Track in this process, one video after the other; results as they come."""
    counter = FrameCounter()

    def report(video_id: str, frames: int) -> None:
        counter.report(video_id, frames)
        display.frames_at(counter.total())

    device = "cuda" if torch.cuda.is_available() else "cpu"
    worker = VideoTracker(replace(settings, device=device), report)
    for segment in segments:
        yield worker.track(segment.info)


def run_on_ray(
    segments: Sequence[Segment],
    settings: TrackSettings,
    display: RunDisplay,
    workers: int | None,
) -> Iterator[SegmentResult]:
    """Track on the connected Ray cluster; results as they come, in no order.

    Args:
        segments: Work, longest first.
        settings: For the workers; the device is chosen here.
        display: Told of frames while videos are under way.
        workers: Actors; None is one a GPU, without GPUs one a CPU with one CPU to spare.
    """
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    size = min(workers or gpus or max(1, cpus - 1), len(segments))
    _configure_ray_data()
    counter: Any = ray.remote(num_cpus=0, max_restarts=-1)(FrameCounter).remote()
    # One row a block: an error, or a node that dies, then costs one video and no other.
    rows = ray.data.from_items(
        [pack_info(segment.info) for segment in segments], override_num_blocks=len(segments)
    )
    results = rows.map_batches(
        VideoTracker,
        fn_constructor_args=(
            replace(settings, device="cuda" if gpus else "cpu"),
            RemoteReport(counter),
        ),
        batch_size=1,
        batch_format="pyarrow",
        # One task in flight: a second one, waiting behind a long video, could run elsewhere.
        compute=ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=1),
        num_gpus=1 if gpus else None,
        num_cpus=None if gpus else 1,
    )
    with _frames_polled(counter, display):
        for batch in results.iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        ):
            yield from unpack_results(batch)


@contextmanager
def connected(address: str | None, workers: int | None) -> Iterator[None]:
    """A Ray cluster: the one already connected to, the one at `address`, or one of our own."""
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray").setLevel(logging.ERROR)  # else notices of Ray's own start
    if address is None:
        # Logical CPUs: one is spare, for Ray's helpers, beside the workers asked for.
        cpus = max(os.cpu_count() or 1, (workers or 1) + 1)
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            logging_level=logging.ERROR,
        )
    else:
        ray.init(address=address, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _configure_ray_data() -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False  # ours shows frames
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # one long video may be all that is left
    context.max_errored_blocks = 0  # bad videos come back as rows; other errors end the run
    context.max_consecutive_actor_init_deaths = 3
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # "bars disabled"


@contextmanager
def _frames_polled(counter: Any, display: RunDisplay) -> Iterator[None]:
    stop = threading.Event()

    def poll() -> None:
        while not stop.wait(_POLL_S):
            try:
                total: int = ray.get(counter.total.remote(), timeout=5)
                display.frames_at(total)
            except (GetTimeoutError, RayError):
                continue  # the bar stands still; the work does not depend on it

    thread = threading.Thread(target=poll, name="frames-poll", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=10)
