"""The worker: loads the model, tracks one video or several at once, publishes their tables."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from model.track.checkpoint import CheckpointError
from pipeline.archive.dead_letters import settle, write_dead_letter
from pipeline.inference.stream_batcher import DeviceLost
from pipeline.inference.stream_plan import ONE_AT_A_TIME, StreamPlan
from pipeline.storage import files as storage
from pipeline.storage.errors import StorageError, describe_error
from pipeline.storage.schema import VIDEOS, rows_table, table_uri, to_parquet_bytes
from pipeline.tracking.attempts import Ledger
from pipeline.tracking.places import Places
from pipeline.tracking.sharing import open_shared
from pipeline.tracking.spool import SpoolError
from pipeline.tracking.tables import VideoTables
from pipeline.tracking.track_video import Report, TrackSettings, track_video
from pipeline.video.decode import DeadlineError, DecodeError
from pipeline.video.info import VideoInfo

_LOAD_ATTEMPTS = 3
_LOAD_PAUSE_S = 2.0


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """The result of a segment, which goes back to the driver.

    Attributes:
        outcome: "ok", "partial", "dead" (a dead letter), "unread" (storage failed while the video
            was read; the next run tries again) or "unwritten" (the output or the temporary folder
            cannot be written, or the GPU failed, so the run has to end).
        message: The reason; "" for "ok".
        frames, frames_encoded: Frames read, and those of them that were encoded.
        runtime: What the student ran in; "" if it did not run for this result.
        decode_wait_s, decode_busy_s, encode_s, step_s, write_s: Seconds of the worker.
    """

    video_id: str
    outcome: str
    message: str
    frames: int = 0
    frames_encoded: int = 0
    video_s: float = 0.0
    num_tracks: int = 0
    runtime: str = field(default="", compare=False)
    decode_wait_s: float = 0.0
    decode_busy_s: float = 0.0
    encode_s: float = 0.0
    step_s: float = 0.0
    write_s: float = 0.0


class VideoTracker:
    """A worker: loads the model, tracks the videos it is called for, publishes their tables.

    Ray Data uses it as an actor class; without a cluster it is called directly. Up to as many
    threads as the plan has streams call `track` at the same time. Each decodes its video, and they
    share the student.
    """

    def __init__(
        self,
        settings: TrackSettings,
        report: Report | None = None,
        notice: Callable[[str], None] = lambda text: None,
        plan: StreamPlan = ONE_AT_A_TIME,
    ) -> None:
        """Load the weights, with retries, because shared storage may not be mounted yet."""
        # Always one thread: how a sum is split over threads changes its last bits, and a resumed
        # run must give the same rows as an undisturbed one. Actors give parallelism.
        torch.set_num_threads(1)
        self.settings = settings
        self.report = report
        self._plan, self._places = plan, Places()
        for attempt in range(1, _LOAD_ATTEMPTS + 1):
            try:
                self.student = open_shared(settings, plan, notice)
                break
            except (CheckpointError, OSError, StorageError):
                if attempt == _LOAD_ATTEMPTS:
                    raise
                time.sleep(_LOAD_PAUSE_S * attempt)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Track the video of a one-row batch; see `pack_info` and `unpack_results`."""
        return pa.Table.from_pylist(
            [asdict(self.track(VideoInfo(**json.loads(row)))) for row in batch["info"].to_pylist()]
        )

    def track(self, info: VideoInfo) -> SegmentResult:
        """Track a video and publish its tables or a dead letter, unless it has either already."""
        try:
            earlier = self._earlier(info)  # after a crash this call may be a repetition
            return earlier or self._attempt(info)
        except StorageError as error:
            return SegmentResult(info.video_id, "unwritten", str(error))
        except _Hangs as hung:
            if not self.settings.in_process:
                # A thread in libav cannot be ended, only its process, after the other videos of
                # this worker. Ray repeats the call in a new process, which finds the dead letter.
                with self._places.alone():
                    os._exit(1)
            return hung.result

    def _attempt(self, info: VideoInfo) -> SegmentResult:
        """Track a video and record the attempt, unless the video has killed too many workers."""
        settings = self.settings
        ledger = Ledger(settings.output, settings.run, settings.in_process)
        before = ledger.entries(info.video_id)
        deaths = ledger.deaths(before)
        if deaths >= settings.limits.max_attempts:
            message = (
                f"it has killed its worker {deaths} times (limits.max_attempts is "
                f"{settings.limits.max_attempts}), so it was not opened again"
            )
            return self._dead_letter(info, "poison", message, deaths)
        # A video whose worker died may have killed it, so it is not tried beside others again.
        alone = bool(before) or self._plan.streams == 1
        with self._places.alone() if alone else self._places.beside():
            attempt = ledger.begin(info.video_id, alone)
            try:
                with self.student.model.stream():
                    result = self._track(info, deaths + 1)
            finally:
                ledger.end(info.video_id, attempt)
        if before:
            ledger.forget([info.video_id])
        return result

    def _track(self, info: VideoInfo, attempts: int) -> SegmentResult:
        with VideoTables(info) as tables:
            try:
                row = track_video(
                    self.student.model, info, self.student.settings, tables, self.report
                )
            except SpoolError:  # other videos would fail in the same way
                raise
            except StorageError as error:  # the video may be good, so no dead letter
                return SegmentResult(info.video_id, "unread", str(error))
            except DecodeError as error:
                return self._dead_letter(info, "input", str(error), attempts)
            except DeadlineError as error:
                result = self._dead_letter(
                    info, "deadline", self._out_of_time(info, error), attempts
                )
                if error.hangs:
                    raise _Hangs(result) from error
                return result
            except DeviceLost as error:
                if self.settings.in_process:
                    return SegmentResult(info.video_id, "unwritten", str(error))
                os._exit(1)  # as after a crash, Ray starts a new process
            except (Exception, SystemExit) as error:  # SystemExit would end the worker
                return self._dead_letter(info, "poison", describe_error(error), attempts)
            return self._publish(info, tables, row)

    def _publish(self, info: VideoInfo, tables: VideoTables, row: dict[str, Any]) -> SegmentResult:
        output = self.settings.output
        mark = time.perf_counter()
        for table, spool in (("tracks", tables.tracks), ("frames", tables.frames)):
            storage.publish(table_uri(output, table, info.video_id), spool.finished())
        row["write_s"] += time.perf_counter() - mark
        commit = table_uri(output, "videos", info.video_id)
        data = to_parquet_bytes(rows_table([row], VIDEOS))
        storage.create_if_absent(commit, data, self.settings.conditional)
        settle(output, info.video_id)
        return replace(_result(row), runtime=self.student.runtime)

    def _dead_letter(
        self, info: VideoInfo, kind: str, message: str, attempts: int
    ) -> SegmentResult:
        output = self.settings.output
        write_dead_letter(
            output,
            video_id=info.video_id,
            uri=info.uri,
            relative_path=info.relative_path,
            stage="track",
            kind=kind,
            message=message,
            attempts=attempts,
            conditional=self.settings.conditional,
        )
        # Another run may have tracked it in the meantime.
        settle(output, info.video_id)
        return self._earlier(info) or SegmentResult(info.video_id, "dead", message)

    def _earlier(self, info: VideoInfo) -> SegmentResult | None:
        """The published result of a video, None if there is none."""
        for table in ("videos", "dead_letters"):
            uri = table_uri(self.settings.output, table, info.video_id)
            if storage.exists(uri):
                row = pq.read_table(pa.BufferReader(storage.read_bytes(uri))).to_pylist()[0]
                dead = table == "dead_letters"
                return (
                    SegmentResult(info.video_id, "dead", row["message"]) if dead else _result(row)
                )
        return None

    def _out_of_time(self, info: VideoInfo, error: DeadlineError) -> str:
        seconds = self.settings.limits.deadline_s(info)
        return (
            f"{error}: {seconds:.0f} s are allowed for its length (limits.deadline_base_s, "
            "limits.deadline_frame_s)"
        )


class _Hangs(Exception):
    """The decoder of a video hangs in this process; there is a dead letter of the video."""

    def __init__(self, result: SegmentResult) -> None:
        super().__init__(result.message)
        self.result = result


def pack_info(info: VideoInfo) -> dict[str, str]:
    """A video as a row for Ray Data. As JSON, because null columns would differ between blocks."""
    return {"info": json.dumps(asdict(info))}


def unpack_results(batch: pa.Table) -> Iterator[SegmentResult]:
    """Results from the rows that workers returned."""
    return (SegmentResult(**row) for row in batch.to_pylist())


def _result(row: dict[str, Any]) -> SegmentResult:
    return SegmentResult(
        video_id=row["video_id"],
        outcome=row["status"],
        message=row["error"] or "",
        frames=row["frames_decoded"],
        frames_encoded=row["frames_encoded"],
        video_s=row["video_s"],
        num_tracks=row["num_tracks"],
        decode_wait_s=row["decode_wait_s"],
        decode_busy_s=row["decode_busy_s"],
        encode_s=row["encode_s"],
        step_s=row["step_s"],
        write_s=row["write_s"],
    )
