"""Run segments on Ray Data, with one actor a GPU or CPU."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import GetTimeoutError, RayError

from model.track.checkpoint import CheckpointError
from pipeline.runtime import ray_cluster
from pipeline.runtime.progress import FrameCounter, RemoteReport, RunDisplay
from pipeline.runtime.stop import ClusterError, StopRequest, guarded
from pipeline.storage.errors import StorageError, describe_error
from pipeline.tracking.plan import Segment
from pipeline.tracking.track_video import TrackSettings
from pipeline.tracking.worker import SegmentResult, VideoTracker, pack_info, unpack_results

_POLL_S = 0.5
_NAMED = 8  # videos named as what a stalled run waits for

# A Ray actor works in a thread, whose glibc arena `keep_large_blocks` does not reach: every large
# tensor would be mapped afresh and its pages cleared, a third of the time of encoding. These must
# be in the environment before the process starts, so they are part of the runtime environment,
# which existing clusters honour too.
_ACTOR_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
}


def run_on_ray(
    segments: Sequence[Segment],
    settings: TrackSettings,
    display: RunDisplay,
    workers: int | None,
    stop: StopRequest,
    watchdog_s: float,
) -> Iterator[SegmentResult]:
    """Track on the connected Ray cluster; results as they come, in no order.

    Args:
        segments: Work, longest first.
        settings: For the workers; the device is chosen here.
        display: Told of frames while videos are under way.
        workers: Actors; None is one a GPU, without GPUs one a CPU with one CPU to spare.
        stop: Looked at all the time.
        watchdog_s: Seconds without a frame or a video after which the run is given up.

    Raises:
        Stopped: A signal asked for the end.
        StalledError: Nothing moved for too long.
        ClusterError: Ray failed, in a way that it does not recover from by itself.
    """
    gpus, actors = cluster_actors(workers)
    size = min(actors, len(segments))
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
    open_videos = {segment.video_id: segment.info.relative_path for segment in segments}

    def found() -> Iterator[SegmentResult]:
        try:
            for batch in results.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=0
            ):
                yield from unpack_results(batch)
        except RayError as error:
            if isinstance(error, StorageError | CheckpointError):  # a worker's own, in Ray's wrap
                raise
            raise ClusterError(
                f"the Ray cluster failed: {describe_error(error)}; what is committed stays, run "
                "again to go on from here"
            ) from error

    def waiting_for() -> str:
        return _named(open_videos, counter)

    with _frames_polled(counter, display):
        stop.listen()
        for result in guarded(found(), stop, lambda: display.frames_done, watchdog_s, waiting_for):
            open_videos.pop(result.video_id, None)
            yield result


def cluster_actors(workers: int | None) -> tuple[int, int]:
    """GPUs of the connected cluster, and how many actors a run with plenty of work gets."""
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    return gpus, workers or gpus or max(1, cpus - 1)


@contextmanager
def connected(address: str | None, workers: int | None) -> Iterator[None]:
    """A Ray cluster: the one already connected to, the one at `address`, or one of our own.

    Raises:
        ClusterError: It cannot be started or reached.
    """
    # Logical CPUs: one is spare, for Ray's helpers, beside the workers asked for.
    cpus = max(os.cpu_count() or 1, (workers or 1) + 1)
    with ray_cluster.connected(address, cpus, _ACTOR_ENVIRONMENT):
        yield


def _configure_ray_data() -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False  # ours shows frames
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # one long video may be all that is left
    context.max_errored_blocks = 0  # bad videos come back as rows; other errors end the run
    context.max_consecutive_actor_init_deaths = 3
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # "bars disabled"


def _named(videos: Mapping[str, str], counter: Any) -> str:
    """The unfinished videos that were heard of last, then others, for a message."""
    try:
        latest: dict[str, int] = ray.get(counter.latest.remote(_NAMED * 4), timeout=5)
    except (GetTimeoutError, RayError):
        latest = {}
    under_way = [f"{videos[v]} (at frame {n})" for v, n in latest.items() if v in videos]
    others = [path for video_id, path in videos.items() if video_id not in latest]
    names = (under_way[::-1] + others)[:_NAMED]
    more = len(videos) - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


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
