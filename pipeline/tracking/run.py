"""Track an archive: the driver's part, from the list of files to the summary.

It imports torch, which is slow, so `jobs.track` imports it after it has checked the settings.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape

from model.track.checkpoint import file_sha256, read_metadata
from pipeline.archive.archive import read_archive
from pipeline.archive.dead_letters import settle
from pipeline.archive.plan import Segment, expected_frames, plan
from pipeline.inference.runtime import check_runtime, takes_openvino
from pipeline.inference.stream_plan import StreamPlan
from pipeline.runtime.mlflow_run import MlflowRun
from pipeline.runtime.progress import RunDisplay, header_bar
from pipeline.runtime.stop import Stopped, StopRequest
from pipeline.storage import files as storage
from pipeline.storage.errors import StorageError
from pipeline.storage.files import ArchiveFile
from pipeline.storage.run_record import Plain, config_hash, record_runtime
from pipeline.storage.schema import table_uri
from pipeline.tracking.attempts import Ledger, new_run
from pipeline.tracking.config import TrackConfig
from pipeline.tracking.here import run_in_process
from pipeline.tracking.memory_estimate import (
    MemoryEstimate,
    check_memory,
    estimate,
    fitting_actors,
    fitting_streams,
)
from pipeline.tracking.sharing import stream_plan
from pipeline.tracking.summary import RunSummary
from pipeline.tracking.track_video import TrackSettings, local_weights
from pipeline.tracking.worker import SegmentResult


def worker_settings(config: TrackConfig) -> tuple[TrackSettings, dict[str, Plain]]:
    """Settings of the workers, and the settings that decide results, with effective thresholds.

    Raises:
        RuntimeUnavailable: The runtime of the settings is not installed.
        CheckpointError: The weights cannot be used.
        StorageError: The weights cannot be read.
    """
    check_runtime(config.model.runtime)
    weights = config.weights if "://" in config.weights else str(Path(config.weights).absolute())
    with local_weights(weights) as path:
        model, sha256 = read_metadata(path).model, file_sha256(path)
    given = asdict(config.tracker)
    effective = {k: getattr(model, k) if value is None else value for k, value in given.items()}
    # As a float, because 10 and 10.0 are one rate and must have one hash.
    fps = None if config.sample.fps is None else float(config.sample.fps)
    deciding: dict[str, Plain] = {
        "weights": sha256,
        "low_quality_below": config.low_quality_below,
        **{f"tracker.{name}": value for name, value in effective.items()},
        "sample.fps": fps,
        "still.skip": config.still.skip,
    }
    if config.model.precision == "fast":  # exact results are those of every runtime
        deciding["model.precision"] = "fast"
    settings = TrackSettings(
        weights=weights,
        output=config.output.rstrip("/"),
        model_sha256=sha256,
        config_hash=config_hash(deciding),
        window=config.decode.window,
        runtime=config.model.runtime,
        precision=config.model.precision,
        queue_size=config.decode.queue_size,
        low_quality_below=config.low_quality_below,
        sample_fps=fps,
        skip_still=config.still.skip == "auto",
        limits=config.limits,
        run=new_run(),
        in_process=config.cluster.workers == 0,
        **effective,
    )
    return settings, deciding


def track_archive(
    config: TrackConfig,
    files: list[ArchiveFile],
    settings: TrackSettings,
    log: MlflowRun | None,
    stop: StopRequest,
    console: Console,
    warn: Callable[[str], None],
) -> RunSummary:
    """Read the headers, then track the videos that are not done; a signal ends it early.

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
        StorageError: The output, or a worker's temporary folder, cannot be written.
        StalledError: There was no progress for `limits.watchdog_s`.
        ClusterError: Ray cannot be used, or was lost.
        Stopped: A signal asked for the end before tracking began.
    """
    done, dead = _finished(settings.output, config.retry_dead_letters)
    with header_bar(console, len(files)) as advance:

        def read() -> None:
            advance()
            stop.check()

        archive = read_archive(
            files,
            settings.output,
            recorded=done | dead,
            threads=config.probe_threads,
            advance=read,
            limits=settings.limits,
            again=config.retry_dead_letters,
            conditional=settings.conditional,
        )
    for path, reason in archive.unread.items():
        warn(f"{path}: {reason}")
    if log is not None:
        log.file("manifest.parquet", archive.manifest)
    segments = plan(archive.videos, done | dead)
    summary = RunSummary(
        found=len(archive.ids) + len(archive.unread),
        skipped=len(archive.ids & (done | dead)),
        dead_before=len(archive.ids & dead),
        dead=sum(item.video_id not in done | dead for item in archive.unreadable),
        unread=len(archive.unread),
        planned=len(segments),
    )
    if not segments:
        return summary
    frames = {s.video_id: expected_frames(s.info) or 0 for s in segments}

    def tick(display: RunDisplay) -> None:
        if log is not None:
            log.metrics(
                {
                    "videos_done": summary.done,
                    "frames": display.frames_done,
                    "frames_per_second": display.rate,
                },
                step=display.frames_done,
            )

    started = time.monotonic()
    runtimes: set[str] = set()
    open_videos = dict.fromkeys(s.video_id for s in segments)
    try:
        with RunDisplay(console, len(segments), sum(frames.values()), tick) as display:
            for result in _results(config, segments, settings, display, stop, console):
                if result.outcome == "unwritten":
                    raise StorageError(result.message)
                del open_videos[result.video_id]
                if result.runtime and result.runtime not in runtimes:
                    runtimes.add(result.runtime)
                    record_runtime(settings.output, result.runtime)
                    said = f"the model runs in {result.runtime}"
                    console.print(said, soft_wrap=True, highlight=False, markup=False)
                summary.add(result)
                display.video_finished(frames[result.video_id], result.frames)
                if result.outcome in ("dead", "unread"):
                    warn(f"{result.video_id}: {result.message}")
    except Stopped:
        # Attempts that this signal has ended do not count against their videos.
        ledger = Ledger(settings.output, settings.run, settings.in_process)
        ledger.forget(open_videos, settings.run)
    summary.wall_s = time.monotonic() - started
    return summary


def _finished(output: str, retry: bool) -> tuple[set[str], set[str]]:
    """Ids of finished videos and of dead letters; with `retry` dead letters are removed."""
    done, dead = (storage.list_stems(f"{output}/{t}") for t in ("videos", "dead_letters"))
    for video_id in done & dead:  # a run was killed before it removed the dead letter
        settle(output, video_id)
    dead -= done
    if retry:
        Ledger(output, "", False).forget(dead)
        for video_id in dead:
            storage.remove(table_uri(output, "dead_letters", video_id))
        dead = set()
    return done, dead


def _results(
    config: TrackConfig,
    segments: list[Segment],
    settings: TrackSettings,
    display: RunDisplay,
    stop: StopRequest,
    console: Console,
) -> Iterator[SegmentResult]:
    workers, watchdog_s = config.cluster.number(), config.limits.watchdog_s
    with local_weights(settings.weights) as path:
        model = read_metadata(path).model
    videos = [segment.info for segment in segments]
    settings = replace(settings, first_picture=(videos[0].height, videos[0].width))

    def estimated(streams: int) -> MemoryEstimate:
        window, queue_size = settings.window, settings.queue_size
        in_openvino = takes_openvino(settings.runtime, settings.device)
        return estimate(model, window, queue_size, videos, settings.limits, streams, in_openvino)

    def chosen(plan: StreamPlan, actors: int) -> StreamPlan:
        """The plan, with fewer videos where RAM is short and their number was left open."""
        if config.cluster.streams is None and plan.streams > 1 and not config.cluster.address:
            most = min(plan.streams, -(-len(segments) // actors))
            streams = fitting_streams(estimated, most, actors, settings.device != "cpu")
            plan = replace(plan, streams=streams)
        if plan.reason:
            display.say(f"{plan.reason}; {plan.streams} videos at once")
        return plan

    if workers == 0:
        settings = replace(settings, device="cuda" if torch.cuda.is_available() else "cpu")
        on_gpu = settings.device != "cpu"
        plan = chosen(stream_plan(settings, config.cluster), 1)
        _check_memory(estimated(plan.streams), 1, on_gpu, console)
        yield from run_in_process(segments, settings, plan, display, stop, watchdog_s, _give_up)
        return
    # Imported here, because Ray takes seconds to import and not all runs need it.
    from pipeline.tracking.on_ray import cluster_actors, connected, plan_on_ray, run_on_ray

    with connected(config.cluster.address, workers):
        gpus, most = cluster_actors(workers, config.cluster.gpu_share)
        actors = most = min(most, len(segments))
        settings = replace(settings, device="cuda" if gpus else "cpu")
        plan = chosen(plan_on_ray(settings, config.cluster), actors)
        need = estimated(plan.streams)
        if not config.cluster.address:
            if workers is None:
                actors = fitting_actors(need, most, gpus > 0)
            if actors < most:
                console.print(
                    f"memory is short: {actors} actors instead of {most}", highlight=False
                )
            _check_memory(need, actors, gpus > 0, console)
        yield from run_on_ray(segments, settings, display, actors, stop, watchdog_s, plan)


def _check_memory(need: MemoryEstimate, actors: int, on_gpu: bool, console: Console) -> None:
    console.print(f"{actors} actors, each at most {need}", soft_wrap=True, highlight=False)
    check_memory(need, actors, on_gpu)


def _give_up(message: str) -> None:
    """End the process, whose main thread hangs, with the exit code of a failed job."""
    Console(stderr=True).print(f"[red]error:[/red] {escape(message)}", soft_wrap=True)
    os._exit(1)
