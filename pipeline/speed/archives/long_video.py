"""One long recording: what saving and windows cost, and what a second worker gains.

The recording is short for a test and its windows are shorter still, so windows cost more here than
with their real length. `long_time` computes what a recording of ten hours takes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline.archive.plan import Mode, Segment, Split, length_s, plan
from pipeline.speed import ray_jobs
from pipeline.speed.archives.join_time import join_time
from pipeline.speed.archives.long_time import Costs, Recording, finish
from pipeline.speed.footage import moving_video
from pipeline.speed.one_core import MeasureError, all_cores, one_core
from pipeline.speed.readings import Measure, Reading, Spread, ratio
from pipeline.speed.student_path import track_settings
from pipeline.storage.files import list_videos
from pipeline.storage.schema import table_uri
from pipeline.tracking.config import SplitConfig
from pipeline.tracking.track_video import TrackSettings
from pipeline.video.info import VideoInfo
from pipeline.video.limits import Limits
from pipeline.video.probe import probe

_WINDOWS = 4
_OVERLAP = 0.1  # of a window
_WARM_S = 1.0  # length of the video that makes a worker warm
_HOURS = 10.0
_WORKERS = (1, 2, 8, 64)


@dataclass(frozen=True, slots=True)
class Way:
    """One way through the recording: its mode, and the number of workers."""

    mode: Mode
    workers: int

    def __str__(self) -> str:
        return f"{self.mode}, {self.workers} worker{'s' if self.workers > 1 else ''}"


WAYS = Way("video", 1), Way("resume", 1), Way("parallel", 1), Way("parallel", 2)


def long_measure(clip: VideoInfo, weights: str, seconds: float) -> Measure:
    """Track a recording that is made of a clip in each of the ways, once.

    Args:
        clip: What is seen.
        weights: Path of the student's weights.
        seconds: Length of the recording.

    Raises:
        ClusterError: Ray cannot be started.
        MeasureError: The recording could not be tracked, or not in that way.
        DecodeError, StorageError: The clip cannot be read.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        warm, info = (
            _recording(folder / f"{kind}.mp4", clip, length)
            for kind, length in (("warm", _WARM_S), ("long", seconds))
        )
        length = length_s(info) or seconds
        settings = replace(
            track_settings(weights, "exact", info, 1),
            limits=Limits(),
            # Half a window more than there is room for, so that rounding does not take one away.
            split_seconds=length / (_WINDOWS + 0.5),
            overlap_s=_OVERLAP * length / _WINDOWS,
        )
        with all_cores() as call:
            taken = call(_all_ways, warm, info, settings, folder)
    with one_core() as call:
        join = call(join_time)
    readings: dict[str, list[Reading]] = {str(way): [taken[way][0]] for way in WAYS}
    one_pass, saving, windows, two = map(str, WAYS)
    shared = (_WINDOWS - 1) * settings.overlap_s / length
    ratios = [
        ratio(readings, over, under, clock)
        for over, under in ((saving, one_pass), (windows, one_pass), (two, windows))
        for clock in ("wall", "core")
    ]
    facts: dict[str, Any] = {
        "seconds by the clock": {name: read[0].wall_s for name, read in readings.items()},
        "seconds of writing rows and parts, and of joining": {
            str(way): taken[way][1]["write_s"] for way in WAYS
        },
        "frames tracked twice": shared,
        f"{windows} / {one_pass}, if these alone cost": 1 / (1 + shared),
        "joining": {
            "ms a window": 1e3 * join.window_s,
            "ms a frame": 1e3 * join.frame_s,
            "rows a frame": join.rows_frame,
        },
    }
    frames_s = Spread.of(reading.rate("core") for reading in readings[one_pass]).median
    facts |= modelled(Costs(frames_s, join.window_s, join.frame_s), info.fps or 25.0)
    return Measure(
        "one long recording",
        f"{length:g} s of {clip.relative_path}, {info.width}x{info.height}, {_WINDOWS} windows of "
        f"{length / _WINDOWS:.3g} s that share {settings.overlap_s:.2g} s",
        readings,
        ratios,
        facts,
    )


def modelled(costs: Costs, fps: float) -> dict[str, Any]:
    """What the model says of ten hours with the default settings, by number of workers."""
    split = SplitConfig()
    recording = Recording(3600 * _HOURS, fps, split.seconds, split.overlap_s)
    return {
        f"{_HOURS:g} hours by the model, workers: {workers}": asdict(
            finish(recording, costs, workers)
        )
        for workers in _WORKERS
    }


def _recording(path: Path, clip: VideoInfo, seconds: float) -> VideoInfo:
    moving_video(path, clip, seconds)
    return probe(next(list_videos(str(path))))


def _all_ways(
    warm: VideoInfo, info: VideoInfo, settings: TrackSettings, folder: Path
) -> Mapping[Way, tuple[Reading, dict[str, Any]]]:
    """The reading of each way, and the video's row, on one cluster."""
    with ray_jobs.two_workers():
        return {way: _tracked(way, warm, info, settings, folder / str(way)) for way in WAYS}


def _tracked(
    way: Way, warm: VideoInfo, info: VideoInfo, settings: TrackSettings, output: Path
) -> tuple[Reading, dict[str, Any]]:
    first = [Segment(replace(warm, video_id=f"{warm.video_id}-{n}")) for n in range(way.workers)]
    rest, _ = plan([info], Split(way.mode, settings.split_seconds, way.workers))
    given = replace(settings, output=str(output))
    reading = ray_jobs.segments_reading(first, rest, given, way.workers)
    row = pq.read_table(table_uri(str(output), "videos", info.video_id)).to_pylist()[0]
    _check(row, way, rest)
    return reading, row


def _check(row: Mapping[str, Any], way: Way, segments: Sequence[Segment]) -> None:
    """Check that the recording was tracked whole, and in the way it was meant to be."""
    done = row["status"], row["split_mode"], row["segments"]
    wanted = "ok", way.mode, len(segments)
    if done != wanted:
        raise MeasureError(
            f"{way}: the recording was tracked as {done}, not as {wanted}: "
            f"{row['error'] or row['repairs']}"
        )
