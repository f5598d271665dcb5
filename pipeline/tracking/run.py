"""Track an archive: the driver's part, from the list of files to the summary.

The archive is a stream: while some thousand videos are tracked, the headers of the next ones are
read. So memory does not grow with the archive, and the first video is tracked early.

It imports torch, which is slow, so `jobs.track` imports it after it has checked the settings.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import BinaryIO

import torch
from rich.console import Console
from rich.markup import escape

from model.track.checkpoint import read_metadata
from pipeline.archive.ahead import Ahead
from pipeline.archive.archive import Archive, HeaderPlace, read_here
from pipeline.archive.dead_letters import settle
from pipeline.archive.id_set import IdSet
from pipeline.archive.manifest import Manifest
from pipeline.archive.plan import Mode, Segment, Split, expected_frames, plan, told
from pipeline.archive.survey import Unread
from pipeline.inference.stream_plan import StreamPlan
from pipeline.runtime.frame_counter import WorkerNews
from pipeline.runtime.heartbeat import Heartbeat, OpenVideo, Totals
from pipeline.runtime.mlflow_run import MlflowRun
from pipeline.runtime.progress import RunDisplay, waiting_line
from pipeline.runtime.settings import Pool
from pipeline.runtime.stop import Stopped, StopRequest
from pipeline.storage import files as storage
from pipeline.storage.compacted import compacted_ids
from pipeline.storage.errors import StorageError
from pipeline.storage.files import ArchiveFile
from pipeline.storage.run_record import record_runtime
from pipeline.storage.schema import table_uri
from pipeline.tracking.attempts import Ledger
from pipeline.tracking.config import TrackConfig
from pipeline.tracking.here import run_in_process
from pipeline.tracking.memory_estimate import RunMemory
from pipeline.tracking.parts import begun_videos
from pipeline.tracking.sharing import stream_plan
from pipeline.tracking.summary import RunSummary
from pipeline.tracking.track_video import TrackSettings, local_weights
from pipeline.tracking.worker import SegmentResult
from pipeline.video.info import VideoInfo
from pipeline.video.only import tracked_picture

FIRST = 256
"""Videos of the first chunk, so that tracking begins early."""
CHUNK = 4096
"""Videos of each other chunk, and greatest number that wait with their headers."""


def track_archive(
    config: TrackConfig,
    files: Iterator[ArchiveFile | Unread],
    settings: TrackSettings,
    log: MlflowRun | None,
    stop: StopRequest,
    console: Console,
    warn: Callable[[str], None],
) -> RunSummary:
    """Read headers and track the videos that are not done, as a stream; a signal ends it early.

    Args:
        config: Settings of the job.
        files: Files of the archive.
        settings: Settings of the workers.
        log: Gets the manifest and the progress; None logs nothing.
        stop: Checked several times a second.
        console: Console for the bars.
        warn: Called with each file that is left out and the reason.

    Raises:
        MemoryRefused: The actors do not fit into the RAM of this machine.
        StorageError: The output, or a worker's temporary folder, cannot be written; or no file of
            the archive can be read.
        StalledError: There was no progress for `limits.watchdog_s`.
        ClusterError: Ray cannot be used, or was lost.
        Stopped: A signal asked for the end before tracking began.
    """

    def finished(manifest: BinaryIO) -> None:
        if log is not None:
            manifest.seek(0)
            log.file("manifest.parquet", manifest.read())

    done, dead = _finished(settings.output, config.retry_dead_letters)
    again = config.retry_dead_letters
    with (
        Manifest(settings.output, settings.run, again) as manifest,
        read_here(config.probe_threads, settings.limits) as here,
    ):
        headers = HeaderPlace(here)
        archive = Archive(
            settings.output,
            manifest,
            done=done,
            dead=dead,
            read=headers,
            unread=lambda path, reason: warn(f"{path}: {reason}"),
            limits=settings.limits,
            conditional=settings.conditional,
        )
        begun = begun_videos(settings.output, done, dead)
        videos = Ahead(archive.videos(files, finished), CHUNK)
        run = _Run(config, settings, headers, archive, videos, begun, log, stop, console, warn)
        heart = Heartbeat(
            settings.output, settings.run, run.totals, run.news, run.open_videos.copy, warn
        )
        try:
            with heart:
                run.track()
                if stop.signal is not None:
                    heart.left("stopped", stop.signal.name)
                elif run.summary.unread or run.summary.left:
                    heart.left("ended")
        finally:
            videos.leave()
    return run.summary


def _finished(output: str, retry: bool) -> tuple[IdSet, IdSet]:
    """Ids of finished videos and of dead letters; with `retry` dead letters are removed."""
    done = ids_done(output)
    dead = IdSet()
    for video_id in storage.iter_stems(f"{output}/dead_letters"):
        if video_id in done:  # a run was killed before it removed the dead letter
            settle(output, video_id)
        elif retry:
            Ledger(output, "", False).forget([video_id])
            storage.remove(table_uri(output, "dead_letters", video_id))
        else:
            dead.add([video_id])
    return done, dead


def ids_done(output: str) -> IdSet:
    """Ids of the videos that earlier runs have finished."""
    return IdSet(chain(storage.iter_stems(f"{output}/videos"), compacted_ids(output)))


@dataclass
class _Run:
    """The tracking of the videos of an archive, chunk by chunk."""

    config: TrackConfig
    settings: TrackSettings
    headers: HeaderPlace
    archive: Archive
    videos: Ahead[VideoInfo]
    begun: dict[str, Mode]
    log: MlflowRun | None
    stop: StopRequest
    console: Console
    warn: Callable[[str], None]
    summary: RunSummary = field(default_factory=RunSummary)
    open_videos: dict[str, OpenVideo] = field(default_factory=dict)
    """Videos of the present chunk that have no result, by id."""
    said: set[str] = field(default_factory=set)
    display: RunDisplay | None = None

    def totals(self) -> Totals:
        """What is counted so far; called from another thread."""
        self._count()
        summary, display = self.summary, self.display
        counted = summary.skipped + summary.dead_headers + summary.unread_files + summary.planned
        waiting = summary.found - counted
        return Totals(
            found=summary.found,
            whole=summary.whole,
            skipped=summary.skipped,
            dead_before=summary.dead_before,
            dead=summary.dead,
            unread=summary.unread,
            planned=summary.planned,
            finished=summary.finished,
            unplanned=max(0, waiting),
            frames=display.frames_done if display else 0,
            frames_expected=display.frames_expected if display else 0,
        )

    def news(self) -> WorkerNews:
        """News of the workers; called from another thread."""
        return self.display.ask() if self.display else WorkerNews()

    def track(self) -> None:
        """Track all videos; a signal ends it early."""
        with waiting_line(self.console, lambda: self.archive.counts.files) as wait:
            first = self._take(FIRST, wait)
        self._count()
        if not first:
            return
        started = time.monotonic()
        runtimes: set[str] = set()
        try:
            with RunDisplay(self.console, self._tick) as self.display:
                display = self.display
                for result in self._results(first, display):
                    if result.outcome == "unwritten":
                        raise StorageError(result.message)
                    if result.runtime and result.runtime not in runtimes:
                        runtimes.add(result.runtime)
                        record_runtime(self.settings.output, result.runtime)
                        self._say(f"the model runs in {result.runtime}")
                    self._add(result, display)
        except Stopped:
            # Attempts that this signal has ended do not count against their videos.
            ledger = Ledger(self.settings.output, self.settings.run, self.settings.in_process)
            ledger.forget(self.open_videos, self.settings.run)
        finally:
            self._count()
            self.summary.wall_s = time.monotonic() - started

    def _add(self, result: SegmentResult, display: RunDisplay) -> None:
        """Count a result. A video that was tracked in windows is counted once."""
        if result.outcome == "part":
            self.summary.windows += 1
        elif result.video_id in self.open_videos:
            self.summary.add(result)
            frames = self.open_videos.pop(result.video_id).frames
            display.video_finished(frames, result.frames)
            if result.outcome in ("dead", "unread"):
                self.warn(f"{result.video_id}: {result.message}")

    def _results(self, first: list[VideoInfo], display: RunDisplay) -> Iterator[SegmentResult]:
        config = self.config
        with local_weights(self.settings.weights) as path:
            model = read_metadata(path).model
        settings = replace(self.settings, first_picture=tracked_picture(config.only, first[0]))

        def chosen(plan: StreamPlan, actors: int) -> StreamPlan:
            """The plan, with fewer videos where RAM is short and their number was left open."""
            if config.cluster.streams is None and plan.streams > 1 and not config.cluster.address:
                most = min(plan.streams, -(-len(first) // actors))
                plan = replace(plan, streams=memory.fitting_streams(first, most, actors))
            if plan.reason:
                display.say(f"{plan.reason}; {plan.streams} videos at once")
            return plan

        watchdog_s = config.limits.watchdog_s
        if config.cluster.workers == 0:
            settings = replace(settings, device="cuda" if torch.cuda.is_available() else "cpu")
            memory = RunMemory(model, settings)
            streams = chosen(stream_plan(settings, config.cluster), 1)
            self._fitting(memory, first, streams, Pool(1, 1, 1))
            every = chain.from_iterable(
                self._planned(videos, 1, display) for videos in self._chunks(first)
            )
            yield from run_in_process(
                every, settings, streams, display, self.stop, watchdog_s, _give_up
            )
            return
        # Imported here, because Ray takes seconds to import and not all runs need it.
        from pipeline.archive.on_ray import read_on_ray
        from pipeline.tracking.on_ray import cluster_actors, connected, plan_on_ray, run_on_ray

        with connected(config.cluster.address, config.cluster.greatest()):
            gpus, most = cluster_actors(config.cluster.greatest(), config.cluster.gpu_share)
            settings = replace(settings, device="cuda" if gpus else "cpu")
            memory = RunMemory(model, settings)
            streams = chosen(plan_on_ray(settings, config.cluster), min(most, len(first)))
            here = self.headers.moved(
                partial(read_on_ray, threads=config.probe_threads, limits=settings.limits)
            )
            for videos in self._chunks(first):
                pool = config.cluster.pool(cluster_actors(None, config.cluster.gpu_share)[1])
                segments = self._planned(videos, pool.start, display)
                pool = pool.at_most(len(segments))
                if not config.cluster.address:  # a cluster of our own does not grow
                    actors = self._fitting(memory, videos, streams, pool)
                    pool = Pool(actors, actors, actors)
                yield from run_on_ray(
                    segments, settings, display, pool, self.stop, watchdog_s, streams
                )
            self.headers.moved(here)

    def _chunks(self, first: list[VideoInfo]) -> Iterator[list[VideoInfo]]:
        """The first videos, then the others, some thousand at a time."""
        videos = first
        while videos:
            yield videos
            videos = self._take(CHUNK)

    def _take(self, count: int, waiting: Callable[[], object] = lambda: None) -> list[VideoInfo]:
        def check() -> None:
            self.stop.check()
            waiting()

        return self.videos.take(count, check)

    def _planned(self, videos: list[VideoInfo], workers: int, display: RunDisplay) -> list[Segment]:
        """Segments of a chunk, which is counted and told of."""
        wanted = self.config.split
        split = Split(wanted.mode, wanted.seconds, workers, self.config.only.whole_videos)
        segments, ways = plan(videos, split, self.begun)
        for line in told(ways.values(), split):
            self._say(line)
        frames = {video.video_id: expected_frames(video) for video in videos}
        self.open_videos.update(
            (v.video_id, OpenVideo(v.relative_path, frames[v.video_id], ways[v.video_id].mode))
            for v in videos
        )
        self.summary.planned += len(videos)
        self.summary.ways.update(way.mode for way in ways.values())
        known = sum(count or 0 for count in frames.values())
        display.expect(len(videos), known, more=not self.archive.counts.whole)
        return segments

    def _fitting(
        self, memory: RunMemory, videos: list[VideoInfo], streams: StreamPlan, pool: Pool
    ) -> int:
        """Actors that fit into RAM; tells of them."""
        need = memory.estimate(videos, streams.streams)
        actors = memory.fitting_actors(need, pool)
        if actors < pool.start:
            self._say(f"memory is short: {actors} actors instead of {pool.start}")
        self._say(f"{actors} actors, each at most {need}")
        return actors

    def _count(self) -> None:
        """Take over what was found in the archive so far."""
        counts, summary = self.archive.counts, self.summary
        summary.found = counts.files + counts.unread
        summary.whole = counts.whole
        summary.skipped, summary.dead_before = counts.skipped, counts.dead_before
        summary.dead_headers, summary.unread_files = counts.dead, counts.unread

    def _tick(self, display: RunDisplay) -> None:
        if self.log is not None:
            self.log.metrics(
                {
                    "videos_done": self.summary.done,
                    "frames": display.frames_done,
                    "frames_per_second": display.rate,
                },
                step=display.frames_done,
            )

    def _say(self, text: str) -> None:
        if text not in self.said:
            self.said.add(text)
            self.console.print(text, soft_wrap=True, highlight=False, markup=False)


def _give_up(message: str) -> None:
    """End the process, whose main thread hangs, with the exit code of a failed job."""
    Console(stderr=True).print(f"[red]error:[/red] {escape(message)}", soft_wrap=True)
    os._exit(1)
