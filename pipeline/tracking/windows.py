"""Windows of one video that are tracked at the same time, and how they become the video.

Window i of W is one part, see `parts`. It begins some seconds early, so that its tracks are under
way when its own rows begin, and shares these frames with the window before it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.archive.plan import length_s
from pipeline.inference.runtime import Runtime
from pipeline.stitching.looks import Looks
from pipeline.stitching.stitch import ChainBroken, Stitched, Window, stitch
from pipeline.storage.schema import SEAMS, rows_table, to_parquet_bytes
from pipeline.tracking.parts import PartError, PartFolder, PartRows, json_bytes, json_values
from pipeline.tracking.resume import PassState, Spent
from pipeline.tracking.spool import stored_rows
from pipeline.tracking.tables import VideoTables, whole_frames, with_ids
from pipeline.tracking.track_video import TrackSettings
from pipeline.tracking.whole_video import track_part, video_row
from pipeline.video.errors import DecodeError, NothingThere
from pipeline.video.info import VideoInfo

_COMMIT = ".json"


class WindowLost(PartError):
    """The part of a window cannot be used, so the window has to be tracked again.

    Attributes:
        index: Number of the window.
    """

    def __init__(self, index: int, error: PartError) -> None:
        """Take the window and what is wrong with its part."""
        super().__init__(str(error))
        self.index = index


@dataclass(frozen=True, slots=True)
class WindowTimes:
    """Times of one window, in seconds of video.

    Attributes:
        begin_s: Where tracking begins; None is the start of the video.
        start_s: From here on rows are those of this window; -inf in the first.
        end_s: Where tracking ends and the rows of the next window begin; None in the last.
    """

    begin_s: float | None
    start_s: float
    end_s: float | None


def window_times(info: VideoInfo, index: int, count: int, overlap_s: float) -> WindowTimes:
    """Times of one of some windows of equal length.

    Args:
        info: A video whose header tells its length.
        index: Number of the window, from 0.
        count: Number of windows.
        overlap_s: Seconds that two windows share.

    Raises:
        ValueError: The length is unknown.
    """
    length = length_s(info)
    if length is None:
        raise ValueError(f"{info.relative_path}: its header tells no length, so it has no windows")
    start_s, end_s = length * index / count, length * (index + 1) / count
    return WindowTimes(
        begin_s=max(0.0, start_s - overlap_s) if index else None,
        start_s=start_s if index else -math.inf,
        end_s=end_s if index + 1 < count else None,
    )


def window_name(window: tuple[int, int]) -> str:
    """Name of the files of a window: "w3of8" is the fourth of eight."""
    return f"w{window[0]}of{window[1]}"


def committed_windows(folder: PartFolder, count: int) -> set[int]:
    """Numbers of the windows, of so many, that have a part."""
    names = folder.names()
    return {i for i in range(count) if window_name((i, count)) + _COMMIT in names}


def track_window(
    tracker: Runtime,
    info: VideoInfo,
    settings: TrackSettings,
    folder: PartFolder,
    window: tuple[int, int],
    report: Callable[[PassState], None],
) -> None:
    """Track one window of a video and write its part.

    A window that cannot be decoded, or has no frame, becomes a part that says so: whether that is a
    fault is known when all windows are there.

    Args:
        tracker: On the settings' device.
        info: The video.
        settings: As of `track_video`.
        folder: The parts of the video.
        window: Its number, and how many there are.
        report: As of `track_part`.

    Raises:
        DeadlineError: It took longer than `settings.limits` allows.
        StorageError: The video could not be read, or the part could not be written.
        SpoolError: The rows cannot be written to this machine's temporary folder.
    """
    times = window_times(info, *window, settings.overlap_s)
    place = PassState(decoding=times.begin_s, looks=Looks(tracker.config.dim))
    assert place.looks is not None
    stem = window_name(window)
    failed: str | None = None
    nothing = False
    share = min(1.0, 1 / window[1] + settings.overlap_s / (length_s(info) or math.inf))
    with PartRows(folder) as rows:
        try:
            track_part(
                tracker,
                info,
                settings,
                place,
                rows.add,
                report,
                end_s=times.end_s,
                share=share,
            )
        except NothingThere:
            nothing = True
        except DecodeError as error:
            failed = str(error)
        files = rows.publish(stem)
    looks = f"{stem}.looks.parquet"
    files[looks] = folder.write(looks, to_parquet_bytes(place.looks.to_arrow()))
    commit = {
        **folder.identity,
        "times": asdict(times),
        "files": files,
        "spent": asdict(place.spent),
        "empty": nothing,
        "last_s": place.last_s,
        "failed": failed,
        "clock_restarted": place.clock_restarted,
        "entered": place.entered,
        "keys": place.keys,
    }
    folder.write(stem + _COMMIT, json_bytes(commit))


def join_windows(
    tracker: Runtime,
    info: VideoInfo,
    settings: TrackSettings,
    folder: PartFolder,
    count: int,
    tables: VideoTables,
    repairs: Sequence[str],
) -> tuple[dict[str, Any], pa.Table]:
    """Join the windows of a video; in RAM are the rows of one window at a time.

    Args:
        tracker: Its config is used.
        info: The video.
        settings: As of `track_video`.
        folder: Has the parts of all windows.
        count: Number of windows.
        tables: Empty; get the rows of the video.
        repairs: What was done about faults, for the video's row.

    Returns:
        The row of `videos`, and the table `seams`.

    Raises:
        WindowLost: A window has to be tracked again.
        ChainBroken: The windows do not fit together, so the video has to be tracked in one pass.
        StorageError: A part cannot be read.
        SpoolError: The temporary folder is full.
    """
    mark = time.perf_counter()
    parts = [_commit(folder, info, settings, (i, count)) for i in range(count)]
    used = _used(parts, settings.only.start_s)
    parts = parts[used.start : used.stop]
    with ExitStack() as stack:
        files = [
            _fetched(stack, folder, (i, count), part) for i, part in zip(used, parts, strict=True)
        ]
        seams = [-math.inf, *(part["times"]["start_s"] for part in parts[1:]), math.inf]
        windows = [
            _window(own, *between, settings.overlap_s)
            for own, between in zip(files, pairwise(seams), strict=True)
        ]
        stitched = stitch(
            windows,
            dim=tracker.config.dim,
            max_gap_s=_unseen_s(tracker, info, parts[0]),
            rejoin_gap_s=settings.max_gap_s,
        )
        for number, own in enumerate(files):
            _add(tables, own, seams[number], stitched, number)
    tables.seams_s = seams[1:-1]
    tables.rejoined.update(stitched.rejoined)
    spent = _summed([part["spent"] for part in parts], stitched.frame_offsets[-1])
    spent.write_s += time.perf_counter() - mark
    row = video_row(tables, settings, spent, "parallel", len(parts), stitched.counters, repairs)
    found = [{"video_id": info.video_id, **seam} for seam in stitched.seams]
    return row, rows_table(found, SEAMS)


_Files = dict[str, BinaryIO]
"""Open copies of the files of a part, by table."""


def _commit(
    folder: PartFolder, info: VideoInfo, settings: TrackSettings, window: tuple[int, int]
) -> dict[str, Any]:
    name = window_name(window) + _COMMIT
    try:
        part = json_values(folder.read(name), name)
        folder.check(part, name)
        if part["times"] != asdict(window_times(info, *window, settings.overlap_s)):
            raise PartError(f"{name} has another length or overlap")
    except PartError as error:
        raise WindowLost(window[0], error) from error
    return part


def _used(parts: Sequence[dict[str, Any]], from_s: float) -> range:
    """Numbers of the windows that are wanted and not behind the end of the video.

    The video may end before its header says, and behind an error one pass would not go on either.

    Args:
        parts: Commits of all windows.
        from_s: Seconds of video before which nothing is tracked.

    Raises:
        ChainBroken: Some window could not be tracked, or is of another part of the file.
    """
    for number, part in enumerate(parts):
        if part["failed"] is not None:
            raise ChainBroken(f"window {number} cannot be decoded by itself: {part['failed']}")
        if part["clock_restarted"]:
            raise ChainBroken(f"the clock of the file restarts in window {number}")
    first = sum((part["times"]["end_s"] or math.inf) <= from_s for part in parts)
    stopped = (i for i, part in enumerate(parts) if part["spent"]["error"] is not None)
    last = next(stopped, len(parts) - 1)
    while last > first and parts[last]["empty"]:
        last -= 1
    if parts[first]["empty"]:
        raise ChainBroken(f"no frame lies in window {first}")
    stopped_by_error = parts[last]["spent"]["error"] is not None
    begin_s = parts[last + 1]["times"]["begin_s"] if last + 1 < len(parts) else math.inf
    if not stopped_by_error and parts[last]["last_s"] >= begin_s:
        raise ChainBroken(f"window {last} has frames after {begin_s:.3f} s, window {last + 1} none")
    for number in range(first + 1, last + 1):
        entered = parts[number]["entered"]
        if entered is not None and entered not in parts[number - 1]["keys"]:
            raise ChainBroken(f"windows {number - 1} and {number} are not of one part of the file")
    return range(first, last + 1)


def _fetched(
    stack: ExitStack, folder: PartFolder, window: tuple[int, int], part: dict[str, Any]
) -> _Files:
    try:
        return {
            name.split(".")[1]: stack.enter_context(folder.fetch(name, sha256))
            for name, sha256 in part["files"].items()
        }
    except PartError as error:
        raise WindowLost(window[0], error) from error


def _window(files: _Files, start_s: float, end_s: float, overlap_s: float) -> Window:
    """What stitching needs of a window whose own rows lie between two times."""
    columns = ["frame_index", "time_s"]
    return Window.of(
        pq.read_table(files["tracks"], columns=[*columns, "track_id", *"xywh"]),
        pq.read_table(files["frames"], columns=columns),
        Looks.from_arrow(pq.read_table(files["looks"])),
        start_s,
        end_s,
        overlap_s,
    )


def _unseen_s(tracker: Runtime, info: VideoInfo, first: dict[str, Any]) -> float:
    """Seconds for which a track may be unseen."""
    fps = info.fps
    if not fps:  # that of the first window
        fps = first["spent"]["frames_decoded"] / (first["times"]["end_s"] or 1.0)
    return tracker.config.miss_tolerance / fps


def _add(
    tables: VideoTables, files: _Files, start_s: float, stitched: Stitched, number: int
) -> None:
    """Add the rows of a window that are its own, with ids and frame indices of the video."""
    offset, ids = stitched.frame_offsets[number], stitched.ids[number]
    new_ids = np.full(max(ids, default=0) + 1, -1, np.int64)
    new_ids[list(ids)] = list(ids.values())
    for table, add in (("frames", tables.add_frames), ("tracks", tables.add_tracks)):
        files[table].seek(0)
        batches = stored_rows(files[table])
        for batch in whole_frames(batches) if table == "tracks" else batches:
            own = batch["time_s"] >= start_s
            if not own.any():
                continue
            rows = {name: column[own] for name, column in batch.items()}
            rows["frame_index"] = rows["frame_index"] + offset
            add(with_ids(rows, new_ids[rows["track_id"]]) if table == "tracks" else rows)


def _summed(spent: Sequence[dict[str, Any]], before_last: int) -> Spent:
    """Seconds of all windows, and how far decoding came in the last one."""
    seconds = [name for name in asdict(Spent()) if name.endswith("_s")]
    whole = Spent(**{name: sum(part[name] for part in spent) for name in seconds})
    whole.frames_decoded = before_last + spent[-1]["frames_decoded"]
    whole.error = spent[-1]["error"]
    return whole
