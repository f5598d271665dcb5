"""Track an archive: ``python -m jobs.track input=/data/cams output=/data/tracks``.

Exit codes: 0 every video is tracked; 3 done, some inputs are dead letters; 2 a bad setting,
nothing was touched; 4 stopped by SIGINT or SIGTERM; 1 anything else: after 1 and 4, running again
goes on from there.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field
from rich.console import Console
from rich.markup import escape

from jobs.cli import (
    EXIT_BAD_CONFIG,
    EXIT_DEAD_LETTERS,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_STOPPED,
    ClusterConfig,
    JobConfig,
    MlflowConfig,
    Settings,
    console,
    fail,
    flat,
    load_config,
    print_config,
)
from pipeline.schema import mask_secrets
from pipeline.storage_errors import StorageError

if TYPE_CHECKING:
    from pipeline.memory import MemoryEstimate
    from pipeline.plan import Segment
    from pipeline.progress import RunDisplay
    from pipeline.run_record import Plain
    from pipeline.stop import StopRequest
    from pipeline.storage import ArchiveFile
    from pipeline.summary import RunSummary
    from pipeline.track import TrackSettings
    from pipeline.tracking_log import TrackingLog
    from pipeline.worker import SegmentResult


class TrackerConfig(Settings):
    """When tracks start, show and end. These change results."""

    birth_threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="score that starts a track; null: the checkpoint's own",
    )
    keep_threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="score with which a track is seen; null: the checkpoint's own",
    )
    miss_tolerance: int | None = Field(
        default=None, ge=0, description="frames a track lives unseen; null: the checkpoint's own"
    )


class DecodeConfig(Settings):
    """How frames are fed to the model. None of it changes results."""

    window: int = Field(default=8, ge=1, le=256, description="frames encoded as one batch")
    queue_size: int = Field(
        default=32, ge=1, description="decoded frames that wait for the model at most, 1 MB each"
    )


class LimitsConfig(Settings):
    """Bounds on what one file may ask for. None of them changes the rows of a video within them."""

    max_pixels: int = Field(
        default=64_000_000, ge=1, description="width times height; larger pictures are refused"
    )
    max_frames: int = Field(
        default=20_000_000, ge=1, description="frames of a video; more are refused, or cut off"
    )
    max_fps: float = Field(default=1000.0, gt=0, description="frames a second by the header")
    max_attempts: int = Field(
        default=3, ge=1, description="times a video may end its worker before it is a dead letter"
    )
    deadline_base_s: float = Field(
        default=900.0, gt=0, description="seconds that any video may take, and"
    )
    deadline_frame_s: float = Field(
        default=5.0, ge=0, description="seconds more a frame, before it is a dead letter"
    )
    watchdog_s: float = Field(
        default=1800.0, gt=0, description="seconds without a frame that end the whole job"
    )


class TrackConfig(JobConfig):
    """Settings of `jobs.track`."""

    job: ClassVar[str] = "track"
    about: ClassVar[str] = (
        "Find the videos of an archive, track what is in them, and leave Parquet tables."
    )

    input: str = Field(
        min_length=1, description="archive: a folder, one file, or a URL such as s3://bucket/2024/"
    )
    output: str = Field(min_length=1, description="folder or URL for the tables")
    weights: str = Field(
        default="weights/vsdmot-nano.safetensors",
        min_length=1,
        description="the student's checkpoint: a path or a URL",
    )
    low_quality_below: float = Field(
        default=0.5, ge=0, le=1, description="frames of lower quality count into low_quality_share"
    )
    retry_dead_letters: bool = Field(
        default=False, description="try dead letters of earlier runs once more"
    )
    tracker: TrackerConfig = TrackerConfig()
    decode: DecodeConfig = DecodeConfig()
    limits: LimitsConfig = LimitsConfig()
    cluster: ClusterConfig = ClusterConfig()
    mlflow: MlflowConfig = MlflowConfig()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(TrackConfig, argv)
    print_config(console, config)
    # After the config: torch and Ray take seconds to import, and a spelling mistake should not.
    from model.checkpoint import CheckpointError
    from pipeline.memory import MemoryRefused
    from pipeline.run_record import RunRefused
    from pipeline.stop import ClusterError, StalledError, Stopped, StopRequest

    stop = StopRequest()
    try:
        with stop.listening():
            return run(config, stop)
    except (CheckpointError, RunRefused, MemoryRefused) as error:
        fail(str(error), EXIT_BAD_CONFIG)
    except (StorageError, StalledError, ClusterError) as error:
        fail(str(error), EXIT_FAILED)
    except Stopped as stopped:
        fail(f"stopped by {stopped}; run the same command again to go on from here", EXIT_STOPPED)


def run(config: TrackConfig, stop: StopRequest) -> int:
    """List, probe, plan, track, close; returns the exit code.

    Raises:
        CheckpointError: The weights cannot be used.
        RunRefused: The output holds results of other settings.
        MemoryRefused: The actors would not fit into this machine.
        StorageError: The archive or the output cannot be reached.
        StalledError: Nothing moves any more.
        ClusterError: Ray cannot be used, or was lost.
        Stopped: A signal asked for the end before there was anything to sum up.
    """
    from pipeline import storage
    from pipeline.archive import find_videos
    from pipeline.progress import listing_bar
    from pipeline.run_record import claim_output
    from pipeline.summary import closing_lines
    from pipeline.tracking_log import TrackingLog

    output = config.output.rstrip("/")
    with listing_bar(console) as seen:
        files = find_videos(config.input, output, seen)
    stop.check()
    settings, deciding = _settings(config)
    conditional = storage.creates_once(output)
    if not conditional:
        _warn(
            f"{output} cannot refuse to overwrite a file: results stay right, but of two runs at "
            "the same moment the later one wins, so start only one"
        )
    settings = replace(settings, conditional=conditional)
    record = claim_output(output, config.job, deciding, config.model_dump(mode="json"), conditional)
    log, status = None, "FAILED"
    if config.mlflow.enabled:
        log = TrackingLog(config.mlflow.uri, config.mlflow.experiment, _warn)
        log.params(flat(config) | deciding | {"config_hash": record["config_hash"]})
        log.file("run.json", storage.read_bytes(f"{output}/run.json"))
    try:
        summary = _track(config, files, settings, log, stop)
        status = "KILLED" if stop.signal else "FAILED" if summary.unread else "FINISHED"
        if log is not None:
            log.metrics(summary.metrics(), step=summary.frames)
            log.file("summary.json", json.dumps(summary.metrics(), indent=2).encode())
    finally:
        if log is not None:
            log.close(status)
    console.print(summary.table())
    if log is not None and log.dropped:
        console.print(f"{log.dropped} entries of the MLflow log were lost", style="yellow")
    any_dead = bool(summary.dead or summary.dead_before)
    for line in closing_lines(output, any_dead):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    if stop.signal is not None:
        _warn(f"stopped by {stop.signal.name}: {summary.left} videos are left; run again for them")
        return EXIT_STOPPED
    if summary.unread:
        return EXIT_FAILED
    return EXIT_DEAD_LETTERS if any_dead else EXIT_DONE


def _settings(config: TrackConfig) -> tuple[TrackSettings, dict[str, Plain]]:
    """What workers are told, and the settings that decide results, thresholds as they will be."""
    from model.checkpoint import file_sha256, read_metadata
    from pipeline.attempts import new_run
    from pipeline.limits import Limits
    from pipeline.run_record import config_hash
    from pipeline.track import TrackSettings, local_weights

    weights = config.weights if "://" in config.weights else str(Path(config.weights).absolute())
    with local_weights(weights) as path:
        model, sha256 = read_metadata(path).model, file_sha256(path)
    given = config.tracker.model_dump()
    effective = {k: getattr(model, k) if value is None else value for k, value in given.items()}
    deciding: dict[str, Plain] = {
        "weights": sha256,
        "low_quality_below": config.low_quality_below,
        **{f"tracker.{name}": value for name, value in effective.items()},
    }
    settings = TrackSettings(
        weights=weights,
        output=config.output.rstrip("/"),
        model_sha256=sha256,
        config_hash=config_hash(deciding),
        window=config.decode.window,
        queue_size=config.decode.queue_size,
        low_quality_below=config.low_quality_below,
        limits=Limits(**config.limits.model_dump(exclude={"watchdog_s"})),
        run=new_run(),
        in_process=config.cluster.workers == 0,
        **effective,
    )
    return settings, deciding


def _track(
    config: TrackConfig,
    files: list[ArchiveFile],
    settings: TrackSettings,
    log: TrackingLog | None,
    stop: StopRequest,
) -> RunSummary:
    """Read the headers, then track what is not done yet; a stop ends it early."""
    from pipeline.archive import read_archive
    from pipeline.attempts import Ledger
    from pipeline.plan import expected_frames, plan
    from pipeline.progress import RunDisplay, header_bar
    from pipeline.stop import Stopped
    from pipeline.summary import RunSummary

    done, dead = _finished(settings.output, config.retry_dead_letters)
    with header_bar(console, len(files)) as advance:

        def read() -> None:
            advance()
            stop.check()

        archive = read_archive(
            files,
            settings.output,
            done | dead,
            config.cluster.probe_threads,
            read,
            settings.limits,
            config.retry_dead_letters,
            settings.conditional,
        )
    for path, reason in archive.unread.items():
        _warn(f"{path}: {reason}")
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
    open_videos = dict.fromkeys(s.video_id for s in segments)
    try:
        with RunDisplay(console, len(segments), sum(frames.values()), tick) as display:
            for result in _results(config, segments, settings, display, stop):
                if result.outcome == "unwritten":
                    raise StorageError(result.message)
                del open_videos[result.video_id]
                summary.add(result)
                display.video_finished(frames[result.video_id], result.frames)
                if result.outcome in ("dead", "unread"):
                    _warn(f"{result.video_id}: {result.message}")
    except Stopped:
        # The attempts that this stop has cut off are not held against their videos.
        ledger = Ledger(settings.output, settings.run, settings.in_process)
        ledger.forget(open_videos, settings.run)
    summary.wall_s = time.monotonic() - started
    return summary


def _finished(output: str, retry: bool) -> tuple[set[str], set[str]]:
    """The ids of videos done and of dead letters; with `retry` the letters are taken back."""
    from pipeline import storage
    from pipeline.attempts import Ledger
    from pipeline.dead_letters import settle
    from pipeline.schema import table_uri

    done, dead = (storage.list_stems(f"{output}/{t}") for t in ("videos", "dead_letters"))
    for video_id in done & dead:  # a run was killed between the two
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
) -> Iterator[SegmentResult]:
    from model.checkpoint import read_metadata
    from pipeline.memory import estimate
    from pipeline.track import local_weights

    workers, watchdog_s = config.cluster.workers, config.limits.watchdog_s
    with local_weights(settings.weights) as path:
        model = read_metadata(path).model
    videos = [segment.info for segment in segments]
    need = estimate(model, settings.window, settings.queue_size, videos, settings.limits)
    if workers == 0:
        from pipeline.in_process import run_in_process

        _check_memory(need, 1, False)
        yield from run_in_process(segments, settings, display, stop, watchdog_s, _give_up)
        return
    from pipeline.pool import cluster_actors, connected, run_on_ray

    with connected(config.cluster.address, workers):
        gpus, actors = cluster_actors(workers)
        if config.cluster.address is None:
            _check_memory(need, min(actors, len(segments)), gpus > 0)
        yield from run_on_ray(segments, settings, display, workers, stop, watchdog_s)


def _check_memory(need: MemoryEstimate, actors: int, on_gpu: bool) -> None:
    from pipeline.memory import check_memory

    console.print(f"{actors} actors, each at most {need}", soft_wrap=True, highlight=False)
    check_memory(need, actors, on_gpu)


def _give_up(message: str) -> None:
    """End a process whose main thread hangs."""
    Console(stderr=True).print(f"[red]error:[/red] {escape(message)}", soft_wrap=True)
    os._exit(EXIT_FAILED)


def _warn(message: str) -> None:
    console.print(f"[yellow]{escape(mask_secrets(message))}[/]", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
