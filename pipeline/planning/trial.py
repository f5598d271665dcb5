"""The work of one process of a trial: it tracks stretches as a worker of a run does."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle, islice
from multiprocessing.connection import Connection
from typing import Any

import torch

from model.net.quality import PATCH, PATCHES
from pipeline.inference.runtime import Runtime
from pipeline.planning.stretches import Stretch
from pipeline.runtime.settings import ClusterConfig
from pipeline.storage.errors import StorageError, describe_error
from pipeline.storage.schema import VIDEOS, rows_table, to_parquet_bytes
from pipeline.tracking.resume import PassState
from pipeline.tracking.sharing import open_shared, stream_plan
from pipeline.tracking.tables import VideoTables, WindowRows
from pipeline.tracking.track_video import TrackSettings, tracked_windows
from pipeline.tracking.whole_video import video_row
from pipeline.video.errors import DeadlineError, DecodeError
from pipeline.video.only import tracked_picture

_EACH = 3  # stretches of a thread, at least
_FIRST_FRAME_S = 60.0  # that a stretch may take beyond its time
_NO_SEAMS = dict.fromkeys(
    ("seams", "seam_matches", "seam_conflicts", "seam_unmatched", "rejoined"), 0
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one stretch took.

    Attributes:
        path: Of its video, in the archive.
        pixels: Of its picture.
        frames: Frames of the file that were passed, after the first window.
        seconds: Of a worker, for these frames.
        entry_s: Seconds more that its begin and its end took: to open, to find the place, to close
            the tables.
        frame_bytes: Bytes of tables that a frame adds.
        video_bytes: Bytes of the tables of a video without frames.
    """

    path: str
    pixels: int
    frames: int
    seconds: float
    entry_s: float
    frame_bytes: float
    video_bytes: float

    @property
    def frame_s(self) -> float:
        """Seconds of a frame."""
        return self.seconds / self.frames


def serve(
    connection: Connection,
    settings: TrackSettings,
    cluster: ClusterConfig,
    places: Sequence[Stretch],
    seconds: float,
) -> None:
    """Body of a process: load the student, wait, track, report."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the driver ends this process
    torch.set_num_threads(1)
    try:
        plan = stream_plan(settings, cluster)
        shared = open_shared(settings, plan)
        _make_ready(shared.model, shared.settings, places[: _EACH * plan.streams])
    except Exception as error:  # of any kind, from torch, OpenVINO or the storage
        connection.send(("broken", f"the student cannot be used: {describe_error(error)}"))
        return
    connection.send(("ready", shared.runtime, plan.streams))
    connection.recv()
    one_at_a_time = threading.Lock()

    def send(message: tuple[Any, ...]) -> None:
        with one_at_a_time:
            connection.send(message)

    def work(mine: Sequence[Stretch]) -> None:
        with shared.model.stream():
            _work(send, shared.model, shared.settings, mine, seconds, plan.streams)

    with ThreadPoolExecutor(plan.streams) as pool:
        enough = list(islice(cycle(places), max(len(places), plan.streams * _EACH)))
        list(pool.map(work, [enough[n :: plan.streams] for n in range(plan.streams)]))
    connection.send(("end",))


def _make_ready(model: Runtime, settings: TrackSettings, places: Sequence[Stretch]) -> None:
    """Track an empty frame of each canvas of some videos, for which a graph may be converted."""
    canvases = {
        model.config.canvas_for(*tracked_picture(settings.only, place.info)) for place in places
    }
    for height, width in sorted(canvases):
        with torch.inference_mode():
            encoded = model.encode(
                torch.zeros((1, 3, height, width), dtype=torch.uint8),
                torch.tensor([[height, width]]),
                torch.zeros((1, PATCHES, PATCH, PATCH), dtype=torch.uint8),
            )
            model.track(encoded, model.initial_state(1))


def _work(
    send: Callable[[tuple[Any, ...]], None],
    model: Runtime,
    settings: TrackSettings,
    places: Sequence[Stretch],
    seconds: float,
    streams: int,
) -> None:
    """Track one stretch after the other while there is time, and a few in any case."""
    over = time.monotonic() + seconds
    for number, place in enumerate(places):
        left = over - time.monotonic()
        if left <= 0 and number >= _EACH:
            return
        path = place.info.relative_path
        send(("begins", path))
        try:
            send(
                (
                    "reading",
                    _read(model, settings, place, max(0.0, left) / max(1, _EACH - number), streams),
                )
            )
        except (DecodeError, DeadlineError, StorageError) as error:
            send(("failed", path, str(error)))
        except Exception as error:  # no video may end the trial
            send(("failed", path, describe_error(error)))


def _read(
    model: Runtime, settings: TrackSettings, stretch: Stretch, seconds: float, streams: int
) -> Reading:
    """Track a stretch for some seconds.

    Raises:
        DecodeError, DeadlineError, StorageError: As of `tracked_windows`.
    """
    info = stretch.info
    place = PassState(decoding=stretch.start_s)
    rows: list[WindowRows] = []
    begun = time.perf_counter()
    # A video that gives no frame in time is a failure of that video alone.
    deadline = time.monotonic() + seconds + _FIRST_FRAME_S
    windows = tracked_windows(model, info, settings, place.spent, deadline, place)
    with VideoTables(info) as tables, closing(windows):
        for window in windows:
            tables.add(window)
            rows.append(window)
            now = time.perf_counter()
            if len(rows) == 1:
                first, frames = now, place.frames
            elif now - first > seconds:
                break
        passed, spent_s = place.frames - frames, now - first
        if not passed:  # a video of one window
            passed, spent_s = frames, first - begun
        entry_s = max(0.0, first - begun - frames * spent_s / passed)
        mark = time.perf_counter()
        whole = _bytes(tables, settings)
        entry_s += time.perf_counter() - mark
        row = video_row(tables, settings, place.spent, "video", 1, _NO_SEAMS, ())
        fixed = len(to_parquet_bytes(rows_table([row], VIDEOS)))
    with VideoTables(info) as tables:
        for window in rows[: len(rows) // 2]:
            tables.add(window)
        half = _bytes(tables, settings)
    tracked = [len(window.frames["frame_index"]) for window in rows]
    more = sum(tracked[len(rows) // 2 :])
    slope = (whole - half) / more  # bytes of a frame that has a row
    return Reading(
        path=info.relative_path,
        pixels=info.width * info.height,
        frames=passed,
        seconds=spent_s / streams,
        entry_s=entry_s / streams,
        frame_bytes=slope * sum(tracked) / max(1, place.frames),
        video_bytes=fixed + max(0.0, whole - slope * sum(tracked)),
    )


def _bytes(tables: VideoTables, settings: TrackSettings) -> int:
    """Bytes of the finished tables."""
    summary = to_parquet_bytes(tables.track_summary(settings.trust.model))
    spools = (tables.tracks.finished(), tables.frames.finished())
    return len(summary) + sum(spool.seek(0, 2) for spool in spools)
