"""Track one video: decode ▸ encode ▸ step ▸ tables; and the worker that does it for many."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from model.allocator import keep_large_blocks
from model.checkpoint import CheckpointError, file_sha256, load_tracker
from model.letterbox import Letterbox
from model.tracker import Tracker
from pipeline import storage
from pipeline.dead_letters import describe_error, write_dead_letter
from pipeline.decode import DecodeError, Frame, FrameStream
from pipeline.probe import VideoInfo
from pipeline.run_record import code_version
from pipeline.schema import VIDEOS, rows_table, table_uri, to_parquet_bytes
from pipeline.tables import VideoTables, WindowRows, video_tables, window_rows

Report = Callable[[str, int], None]
"""Told the video's id and how many of its frames are tracked so far."""

_LOAD_ATTEMPTS = 3
_LOAD_PAUSE_S = 2.0


@dataclass(frozen=True, slots=True)
class TrackSettings:
    """All a worker must know besides the video.

    Attributes:
        weights: Path or URL of the student's checkpoint.
        output: Folder or URL prefix of the tables; not used by `track_video`.
        model_sha256: Expected hash of the weights; "" accepts any.
        config_hash: Stands for the settings that decide results.
        window: Frames encoded as one batch.
        queue_size: Decoded frames that wait for the model, at most.
        low_quality_below: A frame of lower quality counts as low-quality.
        birth_threshold, keep_threshold, miss_tolerance: None is the checkpoint's own.
        device: "cpu" or "cuda".
    """

    weights: str
    output: str = ""
    model_sha256: str = ""
    config_hash: str = ""
    window: int = 8
    queue_size: int = 32
    low_quality_below: float = 0.5
    birth_threshold: float | None = None
    keep_threshold: float | None = None
    miss_tolerance: int | None = None
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """What became of a segment; the row that goes back to the driver. Seconds are the worker's."""

    video_id: str
    outcome: str  # "ok", "partial", "dead" (a dead letter), "unread" (storage failed: run again)
    message: str
    frames: int = 0
    video_s: float = 0.0
    num_tracks: int = 0
    decode_wait_s: float = 0.0
    decode_busy_s: float = 0.0
    encode_s: float = 0.0
    step_s: float = 0.0
    write_s: float = 0.0


@contextmanager
def local_weights(weights: str) -> Iterator[Path]:
    """The checkpoint as a local file, fetched for the time being where it is a URL."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(weights)
        if "://" in weights:
            path = Path(folder) / path.name
            path.write_bytes(storage.read_bytes(weights))
        yield path


def open_tracker(settings: TrackSettings) -> Tracker:
    """Load the student with the settings' thresholds, on the settings' device.

    The process keeps its large blocks of memory from here on (`keep_large_blocks`).

    Raises:
        CheckpointError: The file is missing, damaged, or not the one the run was started with.
    """
    keep_large_blocks()
    with local_weights(settings.weights) as path:
        tracker, _ = load_tracker(path, settings.device)
        if settings.model_sha256 and file_sha256(path) != settings.model_sha256:
            raise CheckpointError(
                f"{settings.weights} is not the file this run was started with "
                f"(sha256 {settings.model_sha256[:12]}…); put the same weights on every machine"
            )
    names = ("birth_threshold", "keep_threshold", "miss_tolerance")
    given = {name: getattr(settings, name) for name in names}
    changes = {name: value for name, value in given.items() if value is not None}
    tracker.config = replace(tracker.config, **changes)
    return tracker


@torch.inference_mode()
def track_video(
    tracker: Tracker, info: VideoInfo, settings: TrackSettings, report: Report | None = None
) -> VideoTables:
    """Track one whole video. Writes nothing.

    A decode thread stays ahead of the model; `window` frames are encoded as one batch, then
    stepped one by one. Memory grows with the rows, not with the frames.

    Raises:
        DecodeError: Not one frame could be read.
    """
    config = tracker.config
    device = torch.device(settings.device)
    state = tracker.initial_state(1)
    windows: list[WindowRows] = []
    wait_s = encode_s = step_s = 0.0
    started = time.perf_counter()
    canvas = config.input_height, config.input_width
    with FrameStream(info, *canvas, settings.queue_size) as stream:
        frames = iter(stream)
        while True:
            mark = time.perf_counter()
            window = list(islice(frames, settings.window))
            wait_s += time.perf_counter() - mark
            if not window:
                break
            mark = time.perf_counter()
            box = stream.letterbox
            memory = tracker.encode(*batch_window(window, box, device))
            if device.type == "cuda":
                torch.cuda.synchronize(device)  # else encoding's time would count as stepping's
            encode_s += time.perf_counter() - mark
            mark = time.perf_counter()
            results, state = tracker.track(memory, state)
            windows.append(window_rows(window, memory, results, box, config.classes))
            step_s += time.perf_counter() - mark
            if report is not None:
                report(info.video_id, window[-1].index + 1)
        error, busy_s = stream.error, stream.decode_seconds
    return video_tables(
        info,
        windows,
        settings.low_quality_below,
        {
            "status": "partial" if error else "ok",
            "error": error,
            "decode_wait_s": wait_s,
            "decode_busy_s": busy_s,
            "encode_s": encode_s,
            "step_s": step_s,
            "write_s": 0.0,
            "elapsed_s": time.perf_counter() - started,
            "model_sha256": settings.model_sha256,
            "config_hash": settings.config_hash,
            "code_version": code_version(),
            "segments": 1,
        },
    )


class VideoTracker:
    """A worker: holds the model, tracks videos one after the other, publishes their tables.

    Used as an actor class by Ray Data, and directly when there is no cluster.
    """

    def __init__(self, settings: TrackSettings, report: Report | None = None) -> None:
        """Load the weights, trying again: shared storage is not always there at once."""
        # One thread, always: how a sum is split over threads changes its last bits, and a run
        # that is taken up again must give the rows of an undisturbed one. Actors give parallelism.
        torch.set_num_threads(1)
        self.settings = settings
        self.report = report
        for attempt in range(1, _LOAD_ATTEMPTS + 1):
            try:
                self.tracker = open_tracker(settings)
                break
            except (CheckpointError, OSError, storage.StorageError):
                if attempt == _LOAD_ATTEMPTS:
                    raise
                time.sleep(_LOAD_PAUSE_S * attempt)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """One-row batch in, one-row batch out, as `pack_info` and `unpack_results` see them."""
        return pa.Table.from_pylist(
            [asdict(self.track(VideoInfo(**json.loads(row)))) for row in batch["info"].to_pylist()]
        )

    def track(self, info: VideoInfo) -> SegmentResult:
        """Track a video and publish its rows, or a dead letter; what is published stays.

        Raises:
            StorageError, OSError: The output cannot be written: no fault of the video.
        """
        output = self.settings.output
        commit = table_uri(output, "videos", info.video_id)
        if storage.exists(commit):  # this call is a repetition after a crash
            stored = pq.read_table(pa.BufferReader(storage.read_bytes(commit)))
            return _result(stored.to_pylist()[0])
        try:
            tables = track_video(self.tracker, info, self.settings, self.report)
        except storage.StorageError as error:  # says nothing of the video: no dead letter
            return SegmentResult(info.video_id, "unread", str(error))
        except DecodeError as error:
            return self._bury(info, "input", str(error))
        except (Exception, SystemExit) as error:  # a SystemExit would take the worker along
            return self._bury(info, "poison", describe_error(error))
        mark = time.perf_counter()
        for table, rows in (("tracks", tables.tracks), ("frames", tables.frames)):
            storage.write_atomic(table_uri(output, table, info.video_id), to_parquet_bytes(rows))
        row = tables.video | {"write_s": time.perf_counter() - mark}
        storage.create_if_absent(commit, to_parquet_bytes(rows_table([row], VIDEOS)))
        return _result(row)

    def _bury(self, info: VideoInfo, kind: str, message: str) -> SegmentResult:
        output = self.settings.output
        write_dead_letter(
            output, info.video_id, info.uri, info.relative_path, "track", kind, message
        )
        return SegmentResult(info.video_id, "dead", message)


def pack_info(info: VideoInfo) -> dict[str, str]:
    """A video as a row for Ray Data; JSON, so that blocks do not differ in what is null."""
    return {"info": json.dumps(asdict(info))}


def unpack_results(batch: pa.Table) -> Iterator[SegmentResult]:
    """The rows that workers gave back."""
    return (SegmentResult(**row) for row in batch.to_pylist())


def _result(row: dict[str, Any]) -> SegmentResult:
    return SegmentResult(
        video_id=row["video_id"],
        outcome=row["status"],
        message=row["error"] or "",
        frames=row["frames_decoded"],
        video_s=row["video_s"],
        num_tracks=row["num_tracks"],
        decode_wait_s=row["decode_wait_s"],
        decode_busy_s=row["decode_busy_s"],
        encode_s=row["encode_s"],
        step_s=row["step_s"],
        write_s=row["write_s"],
    )


def batch_window(
    window: list[Frame], box: Letterbox, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Frames of one video as `Tracker.encode` takes them: images, valid sizes, patches."""
    images = torch.from_numpy(np.stack([frame.image for frame in window])).to(device)
    patches = torch.from_numpy(np.stack([frame.patches for frame in window])).to(device)
    valid = torch.tensor([[box.scaled_height, box.scaled_width]] * len(window), device=device)
    return images.permute(0, 3, 1, 2), valid, patches
