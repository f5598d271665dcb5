"""The rows of one video that an overlay is drawn from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.storage.reading import read_video, video_batches
from pipeline.storage.schema import SCHEMAS

Array = np.ndarray[Any, Any]

_FRAME_COLUMNS = ["frame_index", "time_s", "quality", "encoded", "cut"]
_TRACK_COLUMNS = ["frame_index", "track_id", "x", "y", "w", "h", "score"]


class RenderError(ValueError):
    """There is nothing to draw, or not what was asked for."""


class UnknownTrackError(RenderError):
    """A track that was asked for is not in the video."""


class EmptyRangeError(RenderError):
    """No tracked frame lies in the time that was asked for."""


@dataclass(frozen=True, slots=True)
class OverlayRows:
    """Tracked frames of a video in order, and its boxes by track and frame.

    Attributes:
        index: (F,) int64 `frame_index`.
        time_s: (F,) float64 seconds.
        quality: (F,) float32.
        encoded, cut: (F,) bool; frames that are not still, and first frames of shots.
        frame: (R,) int64 positions of frames.
        track_id: (R,) int64; rows are sorted by it, then by frame.
        boxes: (R, 4) float32 x, y, w, h in pixels.
        score: (R,) float32.
        trust: of a track, where the table has it.
    """

    index: Array
    time_s: Array
    quality: Array
    encoded: Array
    cut: Array
    frame: Array
    track_id: Array
    boxes: Array
    score: Array
    trust: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, frames: pa.Table, tracks: pa.Table, trust: dict[int, float]) -> OverlayRows:
        """Take rows of the tables `frames` and `tracks`."""
        frames = frames.sort_by("frame_index")
        index, time_s, quality, encoded, cut = (frames[name].to_numpy() for name in _FRAME_COLUMNS)
        number, ids = (tracks[name].to_numpy() for name in _TRACK_COLUMNS[:2])
        order = np.lexsort((number, ids))
        boxes = np.stack([tracks[name].to_numpy() for name in "xywh"], axis=1)
        return cls(
            index, time_s, quality, encoded, cut, np.searchsorted(index, number[order]),
            ids[order], boxes[order], tracks["score"].to_numpy()[order], trust,
        )  # fmt: skip

    def within(self, start_s: float | None, end_s: float | None) -> range:
        """Positions of the frames from one time up to another, for None from or to the end.

        Raises:
            EmptyRangeError: No tracked frame lies there.
        """
        first = 0 if start_s is None else int(np.searchsorted(self.time_s, start_s))
        last = len(self.time_s) if end_s is None else int(np.searchsorted(self.time_s, end_s))
        if first >= last:
            tracked = (
                f"tracked frames lie from {self.time_s[0]:.2f} to {self.time_s[-1]:.2f} s"
                if len(self.time_s)
                else "the table `frames` has no row of this video"
            )
            asked = f"start_s={_shown(start_s)} end_s={_shown(end_s)}"
            raise EmptyRangeError(f"{asked}: no frame to draw; {tracked}")
        return range(first, last)

    def chosen(self, tracks: tuple[int, ...], min_trust: float) -> set[int]:
        """Ids of the tracks to draw: those that are named, or all; and of enough trust.

        A track whose trust is not known counts as trusted.

        Raises:
            UnknownTrackError: A track that is named is not there.
        """
        there = np.unique(self.track_id).tolist()
        if missing := sorted(set(tracks) - set(there)):
            raise UnknownTrackError(
                f"tracks: {_listed(missing)} {'is' if len(missing) == 1 else 'are'} not in this "
                f"video; it has {_listed(there) if there else 'no track'}"
            )
        return {n for n in tracks or there if self.trust.get(n, 1.0) >= min_trust}


def read_rows(output: str, video_id: str) -> OverlayRows:
    """Read the rows of one video.

    Raises:
        StorageError: The tables cannot be read.
    """
    read = {
        table: pa.Table.from_batches(
            video_batches(output, table, video_id, columns),
            pa.schema([SCHEMAS[table].field(name) for name in columns]),
        )
        for table, columns in (("frames", _FRAME_COLUMNS), ("tracks", _TRACK_COLUMNS))
    }
    summary = read_video(output, "track_summary", video_id)
    pairs = zip(summary["track_id"].to_pylist(), summary["trust"].to_pylist(), strict=True)
    trust = {number: value for number, value in pairs if value is not None}
    return OverlayRows.of(read["frames"], read["tracks"], trust)


def _shown(value: float | None) -> str:
    return "null" if value is None else f"{value:g}"


def _listed(numbers: list[int], most: int = 20) -> str:
    text = ", ".join(str(n) for n in numbers[:most])
    return f"{text} and {len(numbers) - most} more" if len(numbers) > most else text
