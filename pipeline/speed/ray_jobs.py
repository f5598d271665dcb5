"""The speed of jobs on Ray, in the middle of the work, and what Ray itself takes.

The time until the first videos are done is left out, because Ray and its workers start once a
run, however long that is. A reading starts when each actor has done one video and ends with the
last one.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

import psutil
import ray
from ray.data import ActorPoolStrategy, DataContext
from rich.console import Console

from pipeline.archive.plan import Segment
from pipeline.runtime import ray_cluster
from pipeline.runtime.machine import usable_cores
from pipeline.runtime.progress import RunDisplay
from pipeline.runtime.settings import Pool
from pipeline.runtime.stop import StopRequest
from pipeline.speed.one_core import MeasureError
from pipeline.speed.peak_memory import sampled
from pipeline.speed.plain_job import plain_job
from pipeline.speed.readings import Reading
from pipeline.tracking.on_ray import connected, run_on_ray
from pipeline.tracking.track_video import TrackSettings
from pipeline.video.info import VideoInfo

_PATIENCE_S = 300.0
_EACH = 3  # videos for each actor
_SAMPLE_S = 0.2
ACTORS, DRIVER, HELPERS = "actors", "driver", "helpers"
"""Who takes processor time: the workers, this process, and all other processes of Ray."""


def our_readings(
    info: VideoInfo, settings: TrackSettings, rows: int
) -> tuple[Reading, Reading, float]:
    """Readings of the job with one actor and with two, and `driver_rows`, on a new cluster.

    Args:
        info: The video; `settings.limits` says how many of its frames are tracked.
        settings: Of the workers, but for their output.
        rows: Rows for `driver_rows`.

    Raises:
        ClusterError: It cannot be started.
        MeasureError: A video could not be tracked.
    """
    with two_workers():
        one, two = (job_reading(info, settings, actors, _EACH) for actors in (1, 2))
        return one, two, driver_rows(rows)


def job_reading(info: VideoInfo, settings: TrackSettings, actors: int, each: int) -> Reading:
    """Track copies of a video as `vsdmot track` does, on the connected cluster.

    Args:
        info: The video; `settings.limits` says how many of its frames are tracked.
        settings: Of the workers, but for their output.
        actors: Number of actors.
        each: Videos for each actor, at least 2; the first is not in the reading.

    Returns:
        A reading. Its parts are cores: those that actors, driver and helpers kept busy.

    Raises:
        MeasureError: A video could not be tracked.
    """
    copies = [Segment(replace(info, video_id=f"{info.video_id}-{n}")) for n in range(actors * each)]
    with tempfile.TemporaryDirectory() as folder:
        given = replace(settings, output=folder)
        return segments_reading(copies[:actors], copies[actors:], given, actors)


@contextmanager
def two_workers() -> Iterator[None]:
    """A new cluster on this machine, of at least two workers.

    Raises:
        ClusterError: It cannot be started.
    """
    with _workers_not_nice(), connected("", 2):
        yield


def segments_reading(
    first: Sequence[Segment], rest: Sequence[Segment], settings: TrackSettings, actors: int
) -> Reading:
    """Track segments as `vsdmot track` does, on the connected cluster.

    Args:
        first: As many videos as actors, so that each is warm; they are not in the reading.
        rest: What is in the reading.
        settings: Of the workers, with their output.
        actors: Number of actors.

    Returns:
        As of `job_reading`.

    Raises:
        MeasureError: A video could not be tracked.
    """
    # Else an actor that starts early would take all of the first videos.
    DataContext.get_current().wait_for_min_actors_s = int(_PATIENCE_S)
    display = RunDisplay(Console(quiet=True), lambda display: None)
    pool = Pool(actors, actors, actors)
    waiting = {segment.video_id for segment in first}
    frames = 0
    with _processor_time() as meter:
        segments = [*first, *rest]
        for result in run_on_ray(segments, settings, display, pool, StopRequest(), _PATIENCE_S):
            if result.outcome not in ("ok", "partial", "part"):
                raise MeasureError(f"{result.video_id} cannot be tracked: {result.message}")
            if result.video_id in waiting:
                waiting.remove(result.video_id)
                if not waiting:
                    meter.start()
                continue
            frames += result.frames
            if meter.started:
                meter.stop()  # the last result counts
    return meter.reading(frames)


def plain_reading(info: VideoInfo, weights: str, most: int) -> Reading:
    """Run the plain job on a video, on a new cluster as `ray.init()` starts it; parts are cores.

    Args:
        info: The video.
        weights: Path of the student's weights.
        most: Frames after which it is ended.

    Raises:
        ClusterError: It cannot be started.
        MeasureError: The video is too short.
    """
    with (
        _workers_not_nice(),
        ray_cluster.connected("", usable_cores(), log_to_driver=False),
    ):
        return _plain_reading(info, weights, most)


def _plain_reading(info: VideoInfo, weights: str, most: int) -> Reading:
    _quiet()
    frames = 0
    with _processor_time() as meter, closing(plain_job([info.uri], weights)) as batches:
        for done in batches:
            if not meter.started:  # Ray and its workers have started
                meter.start()
                continue
            frames += done
            meter.stop()  # the last batch counts
            if frames >= most:
                break
    return meter.reading(frames)


def driver_rows(rows: int) -> float:
    """Rows a second that the driver takes from an actor that does nothing, on this cluster.

    It is the greatest number of videos a second that one driver can hand out.
    """
    _quiet()
    given = ray.data.from_items([{"info": f"{n}"} for n in range(rows)], override_num_blocks=rows)
    returned = given.map_batches(
        _Nothing,
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=1, max_tasks_in_flight_per_actor=1),
        num_cpus=1,
    )
    start = 0.0
    for _ in returned.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        start = start or time.perf_counter()
    return (rows - 1) / (time.perf_counter() - start)


class _Nothing:
    """A worker that gives its row back."""

    def __call__(self, batch: object) -> object:
        return batch


class _Meter:
    """Processor seconds of this process and all below it, between two marks."""

    def __init__(self) -> None:
        # By process, because the time of a process that has ended cannot be asked for.
        self._seconds: dict[int, tuple[str, float]] = {}
        self._lock = threading.Lock()
        self._marks: list[tuple[float, dict[str, float]]] = []

    @property
    def started(self) -> bool:
        """Whether the first mark is set."""
        return bool(self._marks)

    def start(self) -> None:
        """Set the first mark."""
        self._marks = [self._mark()]

    def stop(self) -> None:
        """Set the second mark; a later one replaces it."""
        self._marks = [self._marks[0], self._mark()]

    def reading(self, frames: int) -> Reading:
        """What lies between the marks."""
        if len(self._marks) < 2:
            raise MeasureError("the video is too short; give one with more frames")
        (start, before), (end, after) = self._marks
        wall = end - start
        spent = {role: after[role] - before[role] for role in after}
        return Reading(frames, wall, sum(spent.values()), {r: s / wall for r, s in spent.items()})

    def sample(self) -> None:
        """Read the processor time of all processes that live."""
        own = psutil.Process()
        with self._lock:
            for process in (own, *own.children(recursive=True)):
                try:
                    times = process.cpu_times()
                    role = DRIVER if process == own else _role(process)
                except psutil.Error:
                    continue  # it has ended; its last sample stays
                self._seconds[process.pid] = role, times.user + times.system

    def _mark(self) -> tuple[float, dict[str, float]]:
        now = time.perf_counter()
        self.sample()
        sums = dict.fromkeys((ACTORS, DRIVER, HELPERS), 0.0)
        for role, seconds in self._seconds.values():
            sums[role] += seconds
        return now, sums


def _role(process: psutil.Process) -> str:
    """A worker of Ray names itself after what it runs."""
    title = " ".join(process.cmdline()[:1])
    work = title.startswith("ray::") and not title.startswith(("ray::IDLE", "ray::FrameCounter"))
    return ACTORS if work else HELPERS


@contextmanager
def _processor_time() -> Iterator[_Meter]:
    meter = _Meter()
    with sampled(meter.sample, _SAMPLE_S):
        yield meter


@contextmanager
def _workers_not_nice() -> Iterator[None]:
    """Start Ray so that its workers run at the priority of what they are compared with.

    By default it makes them nice, so that other work comes first.
    """
    variable = "RAY_worker_niceness"
    before = os.environ.get(variable)
    os.environ[variable] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before


def _quiet() -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.data._internal.progress"):
        logging.getLogger(name).setLevel(logging.ERROR)
