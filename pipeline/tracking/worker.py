"""The worker: loads the model, tracks one video or several at once, publishes their tables."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from model.track.checkpoint import CheckpointError
from pipeline.archive.dead_letters import settle, write_dead_letter
from pipeline.archive.plan import Segment
from pipeline.inference.stream_batcher import DeviceLost
from pipeline.inference.stream_plan import ONE_AT_A_TIME, StreamPlan
from pipeline.runtime.places import Places
from pipeline.runtime.reports import Report
from pipeline.stitching.stitch import ChainBroken
from pipeline.storage import files as storage
from pipeline.storage.errors import StorageError, describe_error
from pipeline.storage.schema import VIDEOS, rows_table, table_uri, to_parquet_bytes
from pipeline.tracking.attempts import Ledger
from pipeline.tracking.parts import OutputError, PartFolder
from pipeline.tracking.resume import PassState, Saves
from pipeline.tracking.sharing import open_shared
from pipeline.tracking.spool import SpoolError
from pipeline.tracking.tables import VideoTables
from pipeline.tracking.track_video import TrackSettings
from pipeline.tracking.whole_video import track_video
from pipeline.tracking.windows import (
    WindowLost,
    committed_windows,
    join_windows,
    track_window,
    window_name,
)
from pipeline.video.errors import DeadlineError, DecodeError, PlaceLost
from pipeline.video.info import VideoInfo

_LOAD_ATTEMPTS = 3
_LOAD_PAUSE_S = 2.0


@dataclass(frozen=True, slots=True)
class SegmentResult:
    """The result of a segment, which goes back to the driver.

    Attributes:
        outcome: "ok", "partial", "dead" (a dead letter), "part" (a window is done, others of its
            video are not), "unread" (storage failed while the video was read; the next run tries
            again) or "unwritten" (the output or the temporary folder cannot be written, or the GPU
            failed, so the run has to end).
        message: The reason; "" for "ok".
        window: For "part": name of the window, as of `window_name`.
        frames, frames_encoded: Frames read, and those of them that were encoded.
        runtime: What the student ran in; "" if it did not run for this result.
        decode_wait_s, decode_busy_s, encode_s, step_s, write_s: Seconds of the worker.
    """

    video_id: str
    outcome: str
    message: str
    window: str = ""
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

    @property
    def name(self) -> str:
        """The video, or the window of one, as workers report it."""
        return f"{self.video_id} {self.window}".rstrip()


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
        self.report, self.notice = report, notice
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
        """Track the segment of a one-row batch; see `pack_segment` and `unpack_results`."""
        segments = map(unpack_segment, batch["segment"].to_pylist())
        return pa.Table.from_pylist([asdict(self.track(segment)) for segment in segments])

    def track(self, segment: Segment) -> SegmentResult:
        """Track a video or a window of one, unless the video has a row or a dead letter already.

        A video is published, with its row or a dead letter. A window becomes a part, and the last
        one of a video publishes it.
        """
        try:
            earlier = self._earlier(segment.info)  # after a crash this call may be a repetition
            return earlier or self._attempt(segment)
        except StorageError as error:
            return SegmentResult(segment.video_id, "unwritten", str(error))
        except _Hangs as hung:
            if not self.settings.in_process:
                # A thread in libav cannot be ended, only its process, after the other videos of
                # this worker. Ray repeats the call in a new process, which finds the dead letter.
                with self._places.alone():
                    os._exit(1)
            return hung.result

    def _attempt(self, segment: Segment) -> SegmentResult:
        """Track a segment and record the attempt, unless it has killed too many workers."""
        settings, video_id = self.settings, segment.video_id
        window = window_name(segment.window) if segment.window else ""
        ledger = Ledger(settings.output, settings.run, settings.in_process)
        before = ledger.entries(video_id, window)
        deaths = ledger.deaths(before)
        if deaths >= settings.limits.max_attempts:
            message = (
                f"{window or 'it'} has killed its worker {deaths} times (limits.max_attempts is "
                f"{settings.limits.max_attempts}), so it was not opened again"
            )
            return self._dead_letter(segment, "poison", message, deaths)
        # What may have killed a worker is not tried beside others again.
        alone = bool(before) or self._plan.streams == 1

        def forget() -> None:
            ledger.clear(video_id, before)
            before.clear()

        with self._places.alone() if alone else self._places.beside():
            attempt = ledger.begin(video_id, alone, window)
            try:
                with self.student.model.stream():
                    result = self._track(segment, forget, lambda: ledger.deaths(before) + 1)
            finally:
                ledger.end(video_id, attempt)
        forget()
        return result

    def _track(
        self, segment: Segment, saved: Callable[[], None], attempts: Callable[[], int]
    ) -> SegmentResult:
        """Track a segment; what goes wrong becomes a result.

        Args:
            segment: A video or window.
            saved: Called after each saved part.
            attempts: Number of attempts since the last saved part, with this one.
        """
        info = segment.info
        try:
            if segment.window is not None:
                return self._track_window(segment, segment.window, saved)
            return self._track_video(segment, saved)
        except (SpoolError, OutputError):  # other videos would fail in the same way
            raise
        except StorageError as error:  # the video may be good, so no dead letter
            return SegmentResult(info.video_id, "unread", str(error))
        except DecodeError as error:
            return self._dead_letter(segment, "input", str(error), attempts())
        except DeadlineError as error:
            result = self._dead_letter(segment, "deadline", str(error), attempts())
            if error.hangs:
                raise _Hangs(result) from error
            return result
        except DeviceLost as error:
            if self.settings.in_process:
                return SegmentResult(info.video_id, "unwritten", str(error))
            os._exit(1)  # as after a crash, Ray starts a new process
        except (Exception, SystemExit) as error:  # SystemExit would end the worker
            return self._dead_letter(segment, "poison", describe_error(error), attempts())

    def _track_video(
        self, segment: Segment, saved: Callable[[], None], repairs: Sequence[str] = ()
    ) -> SegmentResult:
        """Track a video in one pass and publish it.

        Args:
            segment: The video. In all modes but `video` the pass saves its state.
            saved: As of `_track`.
            repairs: What has gone wrong before, for the video's row.
        """
        info, settings, model = segment.info, self.student.settings, self.student.model
        if segment.mode == "video":
            with VideoTables(info) as tables:
                row = track_video(model, info, settings, tables, self.report)
                return self._publish(segment, tables, row)
        below, reason = None, None
        while True:
            saves = Saves(self._parts(info), settings.split_seconds, saved, self.notice)
            with saves, VideoTables(info) as tables:
                place = saves.restore(model, tables, below, reason)
                # Its parts are gone if another run has finished it in the meantime.
                if place.repairs and (earlier := self._earlier(info)):
                    return earlier
                place.repairs += [text for text in repairs if text not in place.repairs]
                below = saves.number - 1
                try:
                    row = track_video(model, info, settings, tables, self.report, place, saves.add)
                except PlaceLost as error:
                    if below < 0:
                        raise
                    reason = str(error)
                    continue
                return self._publish(segment, tables, row)

    def _track_window(
        self, segment: Segment, window: tuple[int, int], saved: Callable[[], None]
    ) -> SegmentResult:
        """Track a window; with the last one of its video, join them and publish the video.

        Two workers may find all windows there, and both join them, with the same rows.
        """
        info, folder = segment.info, self._parts(segment.info)
        index, count = window
        if index not in committed_windows(folder, count):
            self._make_part(info, window)
            saved()
        if len(committed_windows(folder, count)) < count:
            earlier = self._earlier(info)  # another run may have finished it in the meantime
            if earlier is not None:
                folder.clear()
            return earlier or SegmentResult(
                info.video_id, "part", "", window_name(window), runtime=self.student.runtime
            )
        repairs: list[str] = []
        while True:
            try:
                with VideoTables(info) as tables:
                    settings, model = self.student.settings, self.student.model
                    row, seams = join_windows(model, info, settings, folder, count, tables, repairs)
                    return self._publish(segment, tables, row, seams)
            except WindowLost as lost:
                # Its parts are gone if another worker has finished the video in the meantime.
                if earlier := self._earlier(info):
                    return earlier
                if len(repairs) == 2 * count:
                    raise StorageError(f"parts of {info.video_id} do not stay: {lost}") from lost
                repairs.append(f"window {lost.index} was tracked again ({lost})")
                self.notice(f"{info.video_id}: {repairs[-1]}")
                self._make_part(info, (lost.index, count))
            except ChainBroken as error:
                repairs.append(f"tracked in one pass, because its windows do not fit: {error}")
                self.notice(f"{info.video_id}: {repairs[-1]}")
                return self._track_video(replace(segment, mode="resume"), saved, repairs)

    def _make_part(self, info: VideoInfo, window: tuple[int, int]) -> None:
        name = f"{info.video_id} {window_name(window)}"

        def report(place: PassState) -> None:
            if self.report is not None:
                self.report(name, place)

        settings, model = self.student.settings, self.student.model
        track_window(model, info, settings, self._parts(info), window, report)

    def _publish(
        self,
        segment: Segment,
        tables: VideoTables,
        row: dict[str, Any],
        seams: pa.Table | None = None,
    ) -> SegmentResult:
        """Publish a video: its rows, then its row in `videos`; then its parts are removed."""
        output, info = self.settings.output, segment.info
        mark = time.perf_counter()
        summary = to_parquet_bytes(tables.track_summary(self.settings.trust.model))
        for table, spool in (("tracks", tables.tracks), ("frames", tables.frames)):
            storage.publish(table_uri(output, table, info.video_id), spool.finished())
        if seams is not None:
            uri = table_uri(output, "seams", info.video_id)
            storage.write_atomic(uri, to_parquet_bytes(seams))
        storage.write_atomic(table_uri(output, "track_summary", info.video_id), summary)
        row["write_s"] += time.perf_counter() - mark
        commit = table_uri(output, "videos", info.video_id)
        data = to_parquet_bytes(rows_table([row], VIDEOS))
        storage.create_if_absent(commit, data, self.settings.conditional)
        self._settle(segment)
        return replace(_result(row), runtime=self.student.runtime)

    def _settle(self, segment: Segment) -> None:
        """Remove what is of no use beside the row or dead letter of a video."""
        settle(self.settings.output, segment.video_id)
        if segment.mode != "video":
            self._parts(segment.info).clear()

    def _dead_letter(
        self, segment: Segment, kind: str, message: str, attempts: int
    ) -> SegmentResult:
        output, info = self.settings.output, segment.info
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
        self._settle(segment)  # another run may have tracked it in the meantime
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

    def _parts(self, info: VideoInfo) -> PartFolder:
        s = self.settings
        return PartFolder(s.output, info.video_id, s.model_sha256, s.config_hash)


class _Hangs(Exception):
    """The decoder of a video hangs in this process; there is a dead letter of the video."""

    def __init__(self, result: SegmentResult) -> None:
        super().__init__(result.message)
        self.result = result


def pack_segment(segment: Segment) -> dict[str, str]:
    """A segment as a row for Ray Data. As JSON: null columns would differ between blocks."""
    return {"segment": json.dumps(asdict(segment))}


def unpack_segment(row: str) -> Segment:
    """The segment of a row of `pack_segment`."""
    values = json.loads(row)
    window = values["window"]
    return Segment(VideoInfo(**values["info"]), values["mode"], tuple(window) if window else None)


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
