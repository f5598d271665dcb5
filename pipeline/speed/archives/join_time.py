"""The time of joining the windows of a video, by their number and by the frames.

A tiny student tracks two made videos in windows. Something moves once a second and the frames
between are carried, so that there are soon thousands of frames to join. Joining is the real one: it
reads parts, matches their tracks and writes the tables of the video.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import torch

from model.track.checkpoint import CheckpointMetadata, save_tracker
from model.track.tracker import Tracker
from pipeline.inference.runtime import Runtime
from pipeline.speed.footage import long_video
from pipeline.speed.tiny import TINY, find_anything
from pipeline.storage.files import list_videos
from pipeline.tracking.parts import PartFolder
from pipeline.tracking.tables import VideoTables
from pipeline.tracking.track_video import TrackSettings, open_runtime
from pipeline.tracking.windows import join_windows, track_window
from pipeline.video.probe import probe

_PICTURE = TINY.input_height, TINY.input_width
_RATE = 25  # frames a second
_WINDOWS = 4
_OVERLAP_S = 4.0
_TURNS = 10


@dataclass(frozen=True, slots=True)
class JoinTime:
    """Seconds of joining, of processor time, which other work on the machine changes little.

    Attributes:
        window_s: For each window.
        frame_s: For each frame.
        rows_frame: Rows of tracks on a frame, mean.
    """

    window_s: float
    frame_s: float
    rows_frame: float


def join_time(minutes: tuple[int, int] = (1, 6)) -> JoinTime:
    """Measure joining in this process, on videos of two lengths with equally many windows.

    Raises:
        ChainBroken, StorageError: The windows cannot be joined.
    """
    torch.manual_seed(0)
    tracker = Tracker(TINY).eval()
    find_anything(tracker)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = folder / "tiny.safetensors"
        save_tracker(weights, tracker, CheckpointMetadata(model=TINY))
        settings = TrackSettings(
            str(weights),
            output=str(folder),
            overlap_s=_OVERLAP_S,
            decode_threads=1,
            runtime="torch",
            in_process=True,
        )
        model = open_runtime(settings).model
        found = []
        for length in minutes:
            video = folder / f"{length}.mp4"
            long_video(video, 60 * length * _RATE, _RATE, *_PICTURE, stands=_RATE)
            found.append(_joined(video, model, settings))
    return fitted(found[0], found[1])


@dataclass(frozen=True, slots=True)
class Joined:
    """One video that was joined: windows, frames and rows, and the seconds of processor time."""

    windows: int
    frames: int
    rows: int
    seconds: float


def fitted(short: Joined, long: Joined) -> JoinTime:
    """Seconds for a window and for a frame, from two videos with equally many windows."""
    frame_s = max(0.0, (long.seconds - short.seconds) / (long.frames - short.frames))
    window_s = max(0.0, short.seconds - frame_s * short.frames) / short.windows
    return JoinTime(window_s, frame_s, long.rows / long.frames)


def _joined(video: Path, model: Runtime, settings: TrackSettings) -> Joined:
    """Track the windows of a video, and join them a few times; the least time counts."""
    info = probe(next(list_videos(str(video))))
    folder = PartFolder(settings.output, info.video_id, "", "")
    for number in range(_WINDOWS):
        track_window(model, info, settings, folder, (number, _WINDOWS), lambda frames: None)
    seconds = []
    for _ in range(_TURNS):
        mark = time.process_time()
        with VideoTables(info) as tables:
            row, _ = join_windows(model, info, settings, folder, _WINDOWS, tables, [])
            seconds.append(time.process_time() - mark)
            rows = pq.ParquetFile(tables.tracks.finished()).metadata.num_rows
    return Joined(_WINDOWS, row["frames_decoded"], rows, min(seconds))
