"""The videos of a run that are exported, and the rows of each, read a few at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.exchange.errors import ExportError
from pipeline.storage import files as storage
from pipeline.storage.reading import read_batches, video_batches

_VIDEO_COLUMNS = [
    "video_id", "uri", "relative_path", "width", "height", "fps", "frames_decoded", "video_s",
]  # fmt: skip
_NUMBERS = ("frame_index", "time_s", "track_id", "x", "y", "w", "h", "score")
_DEFAULT_FPS = 25.0  # of a video of one frame whose header gives no rate
GROUP_ROWS = 2_000_000
"""Boxes in memory at once where the rows of a track are needed together."""


@dataclass(frozen=True, slots=True)
class SourceVideo:
    """A finished video of a run.

    Attributes:
        video_id, uri, relative_path: as in the table `videos`.
        width, height: pixels of the displayed frame.
        fps: average frames per second.
        frames: frames that were decoded; those without a row in `frames` count.
        seconds: length of the footage in these frames.
    """

    video_id: str
    uri: str
    relative_path: str
    width: int
    height: int
    fps: float
    frames: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of `tracks`, in the order of their frames.

    Attributes:
        frame: (R,) int64, number of the frame in the file, from 0.
        time_s: (R,) float64.
        track_id: (R,) int64.
        xywh: (R, 4) float64, pixels of the displayed frame.
        score: (R,) float64.
        class_name: (R,) str.
    """

    frame: np.ndarray
    time_s: np.ndarray
    track_id: np.ndarray
    xywh: np.ndarray
    score: np.ndarray
    class_name: np.ndarray

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> Rows:
        """Take the columns of a batch."""
        frame, time_s, track_id, *box, score = (batch[name].to_numpy() for name in _NUMBERS)
        names = batch["class_name"].to_numpy(zero_copy_only=False)
        xywh = np.stack(box, axis=1).astype(np.float64)
        return cls(frame, time_s, track_id, xywh, score.astype(np.float64), names)

    @classmethod
    def none(cls) -> Rows:
        """No rows."""
        ids, numbers = np.zeros(0, np.int64), np.zeros(0)
        return cls(ids, numbers, ids, np.zeros((0, 4)), numbers, np.zeros(0, object))

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, rows: np.ndarray | slice) -> Rows:
        """The rows chosen by a mask, a slice or indices."""
        return Rows(*(column[rows] for column in self._columns))

    @classmethod
    def joined(cls, parts: list[Rows]) -> Rows:
        """All rows of some parts; there must be one."""
        columns = zip(*(part._columns for part in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))

    @property
    def _columns(self) -> tuple[np.ndarray, ...]:
        return self.frame, self.time_s, self.track_id, self.xywh, self.score, self.class_name


class VideoTracks:
    """The tracks of one video that are exported."""

    def __init__(
        self, run: str, video: SourceVideo, class_name: str | None, min_trust: float | None = None
    ) -> None:
        """Choose tracks.

        Args:
            run: folder or URL of the run.
            video: one of its videos.
            class_name: class whose boxes are exported; None exports all.
            min_trust: least trust of a track; None exports all.

        Raises:
            ExportError: trust is asked for, and the run has none.
            StorageError: the tables cannot be read.
        """
        self.video = video
        self._run, self._class = run, class_name
        self._kept = None if min_trust is None else _trusted(run, video, min_trust)

    def frames(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers (F,) int64 and times (F,) float64 in seconds of the tracked frames."""
        columns = ["frame_index", "time_s"]
        batches = list(video_batches(self._run, "frames", self.video.video_id, columns))
        if not batches:
            return np.zeros(0, np.int64), np.zeros(0)
        table = pa.Table.from_batches(batches)
        return table["frame_index"].to_numpy(), table["time_s"].to_numpy()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Rows of the table `tracks`, all columns, in the order of the frames, a few at once."""
        for batch in video_batches(self._run, "tracks", self.video.video_id):
            chosen = batch
            if self._class is not None:
                chosen = chosen.filter(pc.equal(chosen["class_name"], self._class))
            if self._kept is not None:
                chosen = chosen.filter(pc.is_in(chosen["track_id"], self._kept))
            if len(chosen):
                yield chosen

    def rows(self) -> Iterator[Rows]:
        """As `batches`, as arrays."""
        return map(Rows.of, self.batches())

    def by_frame(self) -> Iterator[tuple[int, float, Rows]]:
        """Yield number, time in seconds and rows of each tracked frame, also of empty ones."""
        index, times = self.frames()
        done, waiting = 0, Rows.none()
        for rows in chain(self.rows(), [None]):
            end = len(index)
            if rows is not None:
                waiting = Rows.joined([waiting, rows])
                # The last frame may have more rows in the next batch, so it is kept back.
                end = int(np.searchsorted(index, waiting.frame[-1]))
            cuts = np.searchsorted(waiting.frame, index[done:end], "right").tolist()
            for place, start, stop in zip(range(done, end), [0, *cuts], cuts, strict=False):
                yield int(index[place]), float(times[place]), waiting[start:stop]
            waiting, done = waiting[cuts[-1] if cuts else 0 :], end

    def tracks(self, at_once: int = GROUP_ROWS) -> Iterator[Rows]:
        """The rows of each track, in the order of ids.

        The table is sorted by frame. It is read once to count the boxes of each track, and then
        once for each `at_once` boxes, so memory does not depend on the length of the video.
        """
        counts: dict[int, int] = {}
        for rows in self.rows():
            ids, number = np.unique(rows.track_id, return_counts=True)
            for track_id, count in zip(ids.tolist(), number.tolist(), strict=True):
                counts[track_id] = counts.get(track_id, 0) + count
        for first, last in _groups(counts, at_once):
            parts = []
            for rows in self.rows():
                wanted = (rows.track_id >= first) & (rows.track_id <= last)
                if wanted.any():
                    parts.append(rows[wanted])
            group = Rows.joined(parts)
            group = group[np.argsort(group.track_id, kind="stable")]
            ends = np.flatnonzero(np.diff(group.track_id)) + 1
            for start, end in zip([0, *ends], [*ends, len(group)], strict=True):
                yield group[start:end]


def chosen_videos(run: str, names: Iterable[str] = ()) -> Iterator[SourceVideo]:
    """Yield the finished videos of a run, or those with a name, in the order of the tables.

    Args:
        run: folder or URL of the run.
        names: of each video its id, its path in the archive or its file name, or a pattern of one
            of these with `*` and `?`; none gives all videos.

    Raises:
        ExportError: no video is done, or a name fits none; before the first video.
        StorageError: the run cannot be read.
    """
    wanted = list(names)
    missing, count = set(wanted), 0
    for row in _video_rows(run, ["video_id", "relative_path"]):
        count += 1
        missing.difference_update(_fitting(row, wanted))
        if not missing:
            break
    if not count:
        raise ExportError(f"{run}: no video is tracked; run vsdmot track into it first")
    if missing:
        raise ExportError(
            f"{run}: {sorted(missing)[0]!r} is none of its {count} finished videos; videos= takes "
            "ids, paths in the archive, file names, and patterns of these"
        )
    for row in _video_rows(run, _VIDEO_COLUMNS):
        if not wanted or _fitting(row, wanted):
            yield _video(row)


def _video_rows(run: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    for batch in read_batches(run, "videos", columns):
        yield from batch.to_pylist()


def _fitting(row: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """The names that a video has, or whose pattern it fits."""
    path = row["relative_path"]
    known = (row["video_id"], path, PurePosixPath(path).name)
    return [n for n in names if n in known or any(fnmatchcase(k, n) for k in known)]


def check_whole(run: str) -> None:
    """Refuse a run whose frames do not count from the start of the file.

    Raises:
        ExportError: the run began later in its videos.
        StorageError: `run.json` cannot be read.
    """
    uri = f"{run}/run.json"
    if not storage.exists(uri):
        return
    try:
        start = float(json.loads(storage.read_bytes(uri))["deciding"].get("only.start_s", 0))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExportError(f"{uri} is not the record of a run: {error}") from error
    if start:
        raise ExportError(
            f"{run}: was tracked with only.start_s={start:g}, so its frames do not count from the "
            "start of the videos, as this format does; take format=csv, which has times, or track "
            "with only.start_s=0"
        )


def _video(row: dict[str, Any]) -> SourceVideo:
    frames, seconds, fps = row["frames_decoded"], row["video_s"], row["fps"]
    if not fps:
        fps = frames / seconds if seconds > 0 else _DEFAULT_FPS
    return SourceVideo(
        row["video_id"], row["uri"], row["relative_path"], row["width"], row["height"], fps,
        frames, seconds,
    )  # fmt: skip


def _trusted(run: str, video: SourceVideo, least: float) -> pa.Array:
    """Ids of the tracks of a video with at least this trust."""
    found: list[pa.Array] = []
    rows = 0
    for batch in video_batches(run, "track_summary", video.video_id, ["track_id", "trust"]):
        rows += len(batch)
        if batch["trust"].null_count:
            raise ExportError(
                f"{run}: the tracks of {video.relative_path} have no trust, because its weights "
                "come with no model of it; leave min_trust out"
            )
        found.append(batch.filter(pc.greater_equal(batch["trust"], least))["track_id"])
    if not rows and next(video_batches(run, "tracks", video.video_id, ["track_id"]), None):
        raise ExportError(
            f"{run}: has no table track_summary of {video.relative_path}; track it again with this "
            "version, or leave min_trust out"
        )
    return pa.concat_arrays(found) if found else pa.array([], pa.int64())


def _groups(counts: dict[int, int], at_once: int) -> Iterator[tuple[int, int]]:
    """First and last id of consecutive tracks that together have about `at_once` rows."""
    ids = sorted(counts)
    begin, rows = 0, 0
    for place, track_id in enumerate(ids):
        rows += counts[track_id]
        if rows >= at_once or place + 1 == len(ids):
            yield ids[begin], track_id
            begin, rows = place + 1, 0
