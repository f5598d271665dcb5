"""Whether the memory of a worker grows with the length of a video.

A worker tracks a minute and an hour of the same footage, each in a process of its own, from the
file to published tables. The student is a tiny one with random weights that starts tracks on
anything, so that an hour takes a minute: its activations are small, but all that could grow with
the length is as in a real run, decoder, queue, state, rows and files.
"""

from __future__ import annotations

import gc
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch

from model.track.checkpoint import CheckpointMetadata, save_tracker
from model.track.tracker import Tracker
from pipeline.archive.plan import Segment
from pipeline.runtime.frame_counter import FrameCounter
from pipeline.runtime.reports import WorkerReports
from pipeline.speed.footage import long_video
from pipeline.speed.one_core import MeasureError, one_core
from pipeline.speed.peak_memory import peak_memory
from pipeline.speed.tiny import TINY, find_anything
from pipeline.storage.files import list_videos
from pipeline.tracking.track_video import TrackSettings
from pipeline.tracking.worker import VideoTracker
from pipeline.video.probe import probe

_STUDENT = replace(TINY, slots=16)
_PICTURE = TINY.input_height, TINY.input_width


@dataclass(frozen=True, slots=True)
class Growth:
    """Memory of a worker by the length of the video.

    Attributes:
        minutes: Lengths of the videos.
        frames, rows: Frames tracked, and rows of tracks that were published.
        added_mb: Megabytes (10^6 bytes) at the peak, above those before the video was opened.
        peak_mb: All of the process at the peak.
        seconds: Time that tracking took.
    """

    minutes: list[float]
    frames: list[int]
    rows: list[int]
    added_mb: list[float]
    peak_mb: list[float]
    seconds: list[float]

    @property
    def ratio(self) -> float:
        """Peak memory of the last length in units of that of the first."""
        return self.peak_mb[-1] / self.peak_mb[0]


def memory_growth(minutes: tuple[float, ...] = (1, 60), rate: int = 2) -> Growth:
    """Measure the memory of a worker for videos of these lengths, at `rate` frames a second.

    The first length is tracked once more before, because the first worker converts the student.

    Raises:
        MeasureError: A video could not be tracked.
    """
    found = Growth([], [], [], [], [], [])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = folder / "tiny.safetensors"
        save_tracker(weights, _lively(), CheckpointMetadata(model=_STUDENT))
        for turn, length in enumerate((minutes[0], *minutes)):
            video = folder / f"{length:g}-{turn}.mp4"
            long_video(video, round(60 * length * rate), rate, *_PICTURE)
            with one_core() as call:
                frames, rows, before, peak, seconds = call(_measure, weights, video, folder)
            if turn == 0:
                continue
            found.minutes.append(length)
            found.frames.append(frames)
            found.rows.append(rows)
            found.added_mb.append((peak - before) / 1e6)
            found.peak_mb.append(peak / 1e6)
            found.seconds.append(seconds)
    return found


def _measure(weights: Path, video: Path, folder: Path) -> tuple[int, int, int, int, float]:
    info = probe(next(list_videos(str(video))))
    settings = TrackSettings(
        str(weights),
        output=str(folder / f"tables-{video.stem}"),
        decode_threads=1,
        first_picture=(info.height, info.width),
        in_process=True,
    )
    worker = VideoTracker(settings, WorkerReports(FrameCounter().report))
    gc.collect()
    before = psutil.Process().memory_info().rss
    started = time.perf_counter()
    with peak_memory() as highest:
        result = worker.track(Segment(info))
    seconds = time.perf_counter() - started
    if result.outcome != "ok":
        raise MeasureError(f"the video that was made cannot be tracked: {result.message}")
    import pyarrow.parquet as pq

    tables = Path(settings.output) / "tracks"
    rows = sum(pq.ParquetFile(path).metadata.num_rows for path in tables.glob("*.parquet"))
    return result.frames, rows, before, highest[0], seconds


def _lively() -> Tracker:
    torch.manual_seed(0)
    tracker = Tracker(_STUDENT).eval()
    find_anything(tracker)
    return tracker
