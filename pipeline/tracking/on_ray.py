"""Run segments on Ray Data, with one actor per CPU, or some per GPU."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import GetTimeoutError, RayError

from model.track.checkpoint import CheckpointError
from pipeline.archive.plan import Segment
from pipeline.inference.runtime import RuntimeUnavailable
from pipeline.inference.stream_plan import ONE_AT_A_TIME, StreamPlan
from pipeline.runtime import ray_cluster
from pipeline.runtime.frame_counter import FrameCounter, WorkerNews, video_of
from pipeline.runtime.machine import usable_cores
from pipeline.runtime.progress import RunDisplay
from pipeline.runtime.reports import RemoteReport
from pipeline.runtime.settings import ClusterConfig, Pool
from pipeline.runtime.stage_metrics import DriverMetrics
from pipeline.runtime.stop import ClusterError, StopRequest, guarded
from pipeline.storage.errors import StorageError, describe_error
from pipeline.tracking.sharing import ACTOR_ENVIRONMENT, stream_plan
from pipeline.tracking.track_video import TrackSettings
from pipeline.tracking.worker import SegmentResult, VideoTracker, pack_segment, unpack_results

_POLL_S = 0.5
_NAMED = 8  # videos named in the message of a stalled run


def run_on_ray(
    segments: Sequence[Segment],
    settings: TrackSettings,
    display: RunDisplay,
    pool: Pool,
    stop: StopRequest,
    watchdog_s: float,
    plan: StreamPlan = ONE_AT_A_TIME,
) -> Iterator[SegmentResult]:
    """Track on the connected Ray cluster; yields results in any order.

    Machines that join the cluster get work if the pool may grow. Those that go cost the segments
    under way there, which are tracked again elsewhere.

    Args:
        segments: Segments in this order, at least one.
        settings: Settings of the workers.
        display: Gets the number of frames twice a second, and whom to ask for news.
        pool: Number of actors.
        stop: Checked several times a second.
        watchdog_s: Seconds without a new frame or video after which the run ends.
        plan: How the videos of an actor share its student.

    Raises:
        Stopped: A signal asked for the end.
        StalledError: There was no new frame and no video for `watchdog_s`.
        ClusterError: Ray failed and did not recover.
    """
    on_gpu = settings.device != "cpu"
    _configure_ray_data()
    counter: Any = ray.remote(num_cpus=0, max_restarts=-1)(FrameCounter).remote()
    report = RemoteReport(counter)
    # One row per block, so an error or a dead node costs one video.
    rows = ray.data.from_items(
        [pack_segment(segment) for segment in segments], override_num_blocks=len(segments)
    )
    rows.set_name("vsdmot-track")  # in the dashboard, and as a label of Ray Data's own metrics
    results = rows.map_batches(
        VideoTracker,
        fn_constructor_args=(
            # The decode thread and the model of an actor share its core. More threads of libav
            # would take the cores of other actors.
            replace(settings, decode_threads=0 if on_gpu else 1),
            report,
            report.notice,
            plan,
        ),
        batch_size=1,
        batch_format="pyarrow",
        # As many tasks in flight as an actor has threads: a further one would wait behind a long
        # video while other actors are idle.
        compute=ActorPoolStrategy(
            min_size=pool.least,
            initial_size=pool.start,
            max_size=pool.most,
            max_tasks_in_flight_per_actor=plan.streams,
            max_concurrent_calls_per_actor=plan.streams,
            enable_true_multi_threading=plan.streams > 1,
        ),
        num_gpus=plan.gpu_share if on_gpu else None,
        num_cpus=None if on_gpu else 1,
    )
    open_videos = {segment.video_id: segment.info.relative_path for segment in segments}
    before = display.finished_frames

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

    def news() -> WorkerNews:
        found: WorkerNews = ray.get(counter.news.remote(), timeout=5)
        return found

    metrics = DriverMetrics()
    display.ask = news

    def polled() -> None:
        metrics.open(len(open_videos))  # Ray forgets a gauge that is not set for some time

    def moved() -> int:
        return display.frames_reported

    try:
        with _frames_polled(counter, display, before, polled):
            stop.listen()
            for result in guarded(found(), stop, moved, watchdog_s, waiting_for):
                if result.outcome != "part" and open_videos.pop(result.video_id, None) is not None:
                    metrics.finished(result.outcome)
                counter.forget.remote(result.name)
                yield result
    finally:
        # A call of an actor after the end of the cluster would start another cluster.
        display.ask = WorkerNews


def plan_on_ray(settings: TrackSettings, cluster: ClusterConfig) -> StreamPlan:
    """The plan of `stream_plan`, measured in a process that has the share of a GPU of an actor.

    GPUs of the cluster are taken to be alike.

    Raises:
        GpuMemoryError: The GPU has no memory for one video.
        CheckpointError: The weights cannot be used.
        ClusterError: The process died.
    """
    if settings.device == "cpu" or cluster.streams is not None:
        return stream_plan(settings, cluster)
    measure: Any = ray.remote(num_gpus=cluster.gpu_share, num_cpus=0)(stream_plan)
    try:
        measured: StreamPlan = ray.get(measure.remote(settings, cluster))
    except RayError as error:
        if isinstance(error, StorageError | CheckpointError | RuntimeUnavailable):
            raise
        raise ClusterError(f"the GPU could not be measured: {describe_error(error)}") from error
    return measured


def cluster_actors(workers: int | None, gpu_share: float = 1.0) -> tuple[int, int]:
    """GPUs of the connected cluster, and the greatest number of actors of a run."""
    resources = ray.cluster_resources()
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 1))
    return gpus, workers or gpus * int(1 / gpu_share) or max(1, cpus)


@contextmanager
def connected(address: str, workers: int | None) -> Iterator[None]:
    """A Ray cluster: the connected one, the one at `address`, or a new one on this machine.

    Raises:
        ClusterError: It cannot be started or reached.
    """
    # No CPU is kept for Ray's helpers and the driver: together they need less than a tenth of one.
    cpus = max(usable_cores(), workers or 1)
    with ray_cluster.connected(address, cpus, ACTOR_ENVIRONMENT):
        yield


def _configure_ray_data() -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False  # `RunDisplay` shows frames
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # the last long video may take long
    context.max_errored_blocks = 0  # bad videos are results; other errors end the run
    context.max_consecutive_actor_init_deaths = 3
    # A pool grows when all its actors are busy. Ray's default is above what one task at a time for
    # each actor can reach.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
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
    under_way = [
        f"{videos[video_of(name)]} (at frame {n})"
        for name, n in latest.items()
        if video_of(name) in videos
    ]
    begun = set(map(video_of, latest))
    others = [path for video_id, path in videos.items() if video_id not in begun]
    names = (under_way[::-1] + others)[:_NAMED]
    more = len(videos) - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")


@contextmanager
def _frames_polled(
    counter: Any, display: RunDisplay, before: int, polled: Callable[[], None]
) -> Iterator[None]:
    """Show the frames of a counter, added to those of the videos before.

    Args:
        counter: Handle of a `FrameCounter` actor.
        display: Gets the frames and the notices.
        before: Frames of the videos before.
        polled: Called twice a second.
    """
    stop = threading.Event()

    def poll() -> None:
        said = 0
        while not stop.wait(_POLL_S):
            polled()
            try:
                total: int = ray.get(counter.total.remote(), timeout=5)
                display.frames_at(before + total)
                notices: list[str] = ray.get(counter.notices.remote(said), timeout=5)
                for text in notices:
                    display.say(text)
                said += len(notices)
            except (GetTimeoutError, RayError):
                continue  # the bar stands still; the work does not depend on it

    thread = threading.Thread(target=poll, name="frames-poll", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=10)
