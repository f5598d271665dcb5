"""Track an archive: ``python -m jobs.track input=/data/cams output=/data/tracks``.

Exit codes: 0 every video is tracked; 3 done, some inputs are dead letters; 2 a bad setting,
nothing was touched; 1 anything else: running again goes on from there.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field
from rich.markup import escape

from jobs.cli import (
    EXIT_BAD_CONFIG,
    EXIT_DEAD_LETTERS,
    EXIT_DONE,
    EXIT_FAILED,
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

if TYPE_CHECKING:
    from pipeline.plan import Segment
    from pipeline.progress import RunDisplay
    from pipeline.run_record import Plain
    from pipeline.storage import ArchiveFile
    from pipeline.summary import RunSummary
    from pipeline.track import SegmentResult, TrackSettings
    from pipeline.tracking_log import TrackingLog


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
    tracker: TrackerConfig = TrackerConfig()
    decode: DecodeConfig = DecodeConfig()
    cluster: ClusterConfig = ClusterConfig()
    mlflow: MlflowConfig = MlflowConfig()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(TrackConfig, argv)
    print_config(console, config)
    # After the config: torch and Ray take seconds to import, and a spelling mistake should not.
    from model.checkpoint import CheckpointError
    from pipeline.run_record import RunRefused
    from pipeline.storage import StorageError

    try:
        return run(config)
    except (CheckpointError, RunRefused) as error:
        fail(str(error), EXIT_BAD_CONFIG)
    except StorageError as error:
        fail(str(error), EXIT_FAILED)
    except KeyboardInterrupt:
        fail("interrupted; run the same command again to go on from here", 130)


def run(config: TrackConfig) -> int:
    """List, probe, plan, track, close; returns the exit code.

    Raises:
        CheckpointError: The weights cannot be used.
        RunRefused: The output holds results of other settings.
        StorageError: The archive or the output cannot be reached.
    """
    from pipeline import storage
    from pipeline.archive import find_videos
    from pipeline.run_record import claim_output
    from pipeline.summary import closing_lines
    from pipeline.tracking_log import TrackingLog

    output = config.output.rstrip("/")
    files = find_videos(config.input, output)
    settings, deciding = _settings(config)
    record = claim_output(output, config.job, deciding, config.model_dump(mode="json"))
    log, status = None, "FAILED"
    if config.mlflow.enabled:
        log = TrackingLog(config.mlflow.uri, config.mlflow.experiment, _warn)
        log.params(flat(config) | deciding | {"config_hash": record["config_hash"]})
        log.file("run.json", storage.read_bytes(f"{output}/run.json"))
    try:
        summary = _track(config, files, settings, log)
        status = "FAILED" if summary.unread else "FINISHED"
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
    if summary.unread:
        return EXIT_FAILED
    return EXIT_DEAD_LETTERS if any_dead else EXIT_DONE


def _settings(config: TrackConfig) -> tuple[TrackSettings, dict[str, Plain]]:
    """What workers are told, and the settings that decide results, thresholds as they will be."""
    from model.checkpoint import file_sha256, read_metadata
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
        **effective,
    )
    return settings, deciding


def _track(
    config: TrackConfig,
    files: list[ArchiveFile],
    settings: TrackSettings,
    log: TrackingLog | None,
) -> RunSummary:
    """Read the headers, then track what is not done yet."""
    from pipeline import storage
    from pipeline.archive import read_archive
    from pipeline.plan import expected_frames, plan
    from pipeline.progress import RunDisplay, header_bar
    from pipeline.summary import RunSummary

    done, dead = (storage.list_stems(f"{settings.output}/{t}") for t in ("videos", "dead_letters"))
    with header_bar(console, len(files)) as advance:
        archive = read_archive(files, settings.output, dead, config.cluster.probe_threads, advance)
    if log is not None:
        log.file("manifest.parquet", archive.manifest)
    segments = plan(archive.videos, done | dead)
    summary = RunSummary(
        found=len(archive.ids),
        skipped=len(archive.ids & (done | dead)),
        dead_before=len(archive.ids & dead),
        dead=sum(item.video_id not in dead for item in archive.unreadable),
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
    with RunDisplay(console, len(segments), sum(frames.values()), tick) as display:
        for result in _results(config, segments, settings, display):
            summary.add(result)
            display.video_finished(frames[result.video_id], result.frames)
            if result.outcome in ("dead", "unread"):
                _warn(f"{result.video_id}: {result.message}")
    summary.wall_s = time.monotonic() - started
    return summary


def _results(
    config: TrackConfig, segments: list[Segment], settings: TrackSettings, display: RunDisplay
) -> Iterator[SegmentResult]:
    from pipeline.pool import connected, run_in_process, run_on_ray

    workers = config.cluster.workers
    if workers == 0:
        yield from run_in_process(segments, settings, display)
        return
    with connected(config.cluster.address, workers):
        yield from run_on_ray(segments, settings, display, workers)


def _warn(message: str) -> None:
    console.print(f"[yellow]{escape(mask_secrets(message))}[/]", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
