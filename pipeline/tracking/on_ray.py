"""Run segments on Ray Data, with one actor per GPU or CPU."""

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
from pipeline.inference.runtime import RuntimeUnavailable
from pipeline.runtime import ray_cluster
from pipeline.runtime.progress import FrameCounter, RemoteReport, RunDisplay
from pipeline.runtime.stop import ClusterError, StopRequest, guarded
from pipeline.storage.errors import StorageError, describe_error
from pipeline.tracking.plan import Segment
from pipeline.tracking.track_video import TrackSettings
from pipeline.tracking.worker import SegmentResult, VideoTracker, pack_info, unpack_results

_POLL_S = 0.5
_NAMED = 8  # videos named in the message of a stalled run

# A Ray actor works in a thread, and `keep_large_blocks` does not reach the glibc arena of a thread.
# Without these variables the pages of each large tensor are mapped and cleared again, which takes a
# third of the time of encoding. They have to be set before the process starts, so they are part of
# the runtime environment, which existing clusters use too.
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
    """Track on the connected Ray cluster; yields results in any order.

    Args:
        segments: Segments in this order, at least one.
        settings: Settings of the workers; the device is chosen here.
        display: Gets the number of frames twice a second.
        workers: Number of actors; None is one per GPU, or without GPUs one per CPU but one.
        stop: Checked several times a second.
        watchdog_s: Seconds without a new frame or video after which the run ends.

    Raises:
        Stopped: A signal asked for the end.
        StalledError: There was no new frame and no video for `watchdog_s`.
        ClusterError: Ray failed and did not recover.
    """
    gpus, actors = cluster_actors(workers)
    size = min(actors, len(segments))
    _configure_ray_data()
    counter: Any = ray.remote(num_cpus=0, max_restarts=-1)(FrameCounter).remote()
    # One row per block, so an error or a dead node costs one video.
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
        # One task in flight: a second one would wait behind a long video while others are idle.
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
            if isinstance(
                error, StorageError | CheckpointError | RuntimeUnavailable
            ):  # raised by a worker, wrapped by Ray
                raise
            raise ClusterError(
                f"the Ray cluster failed: {describe_error(error)}; results so far stay; run "
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
    """GPUs of the connected cluster, and the greatest number of actors of a run."""
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    return gpus, workers or gpus or max(1, cpus - 1)


@contextmanager
def connected(address: str, workers: int | None) -> Iterator[None]:
    """A Ray cluster: the connected one, the one at `address`, or a new one on this machine.

    Raises:
        ClusterError: It cannot be started or reached.
    """
    # Logical CPUs: those of the workers, and one for Ray's helpers.
    cpus = max(os.cpu_count() or 1, (workers or 1) + 1)
    with ray_cluster.connected(address, cpus, _ACTOR_ENVIRONMENT):
        yield


def _configure_ray_data() -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False  # `RunDisplay` shows frames
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # the last long video may take long
    context.max_errored_blocks = 0  # bad videos are results; other errors end the run
    context.max_consecutive_actor_init_deaths = 3
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(
        logging.ERROR
    )  # hides "bars disabled"


def _named(videos: Mapping[str, str], counter: Any) -> str:
    """Names of unfinished videos for a message, those that reported last first."""
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
