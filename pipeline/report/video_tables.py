"""The rows of one video, read batch by batch and handed on as boxes by time.

In RAM are a few numbers for each frame and for each track, and the boxes of one chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.report.frame_rows import Array, FrameRows, best_view
from pipeline.report.track_bars import TrackBars
from pipeline.report.track_rows import TrackRows
from pipeline.storage.errors import StorageError
from pipeline.storage.reading import read_video, video_batches
from pipeline.trust.summary import summary_table
from pipeline.trust.sums import TrackSums

CHUNK_ROWS = 40_000
"""Boxes of a chunk, except where one frame has more."""

_FRAME_COLUMNS = ["frame_index", "time_s", "quality", "semantic_weight", "num_tracks"]
_TRACK_COLUMNS = ["frame_index", "track_id", "x", "y", "w", "h", "score"]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Boxes of some consecutive frames.

    Attributes:
        time_s: (F,) float64, of each frame.
        first: (F + 1,) uint32, the rows of frame f are `first[f]` to `first[f + 1]`.
        track_id: (R,) uint32.
        boxes: (R, 4) float32 x, y, w, h in pixels.
        score: (R,) float32.
    """

    time_s: Array
    first: Array
    track_id: Array
    boxes: Array
    score: Array


class VideoRows:
    """The rows of one video.

    Attributes:
        frames: the tracked frames.
        bars: when tracks were seen, complete when `chunks` has been iterated to its end.
    """

    def __init__(self, output: str, video_id: str, size: tuple[int, int]) -> None:
        """Read the frames; tracks are read by `chunks`.

        Args:
            output: the output of vsdmot track.
            video_id: of the video.
            size: width and height of the picture in pixels.

        Raises:
            StorageError: A table cannot be read.
        """
        self._output, self._video_id = output, video_id
        batches = list(video_batches(output, "frames", video_id, _FRAME_COLUMNS))
        if not batches:
            raise StorageError(f"{output}: the table frames has no row of the video {video_id}")
        table = pa.Table.from_batches(batches)
        self.frames = FrameRows(*(table[name].to_numpy() for name in _FRAME_COLUMNS))
        self.bars = TrackBars(self.frames)
        self._summary = read_video(output, "track_summary", video_id)
        # Where its file is missing, it is made here from the rows, without trust.
        self._sums = TrackSums(size, self.frames.index, self.frames.quality)
        self._counts = not len(self._summary)

    @property
    def view(self) -> int:
        """Position of the frame to open the page with.

        Raises:
            ValueError: There is no frame.
        """
        if self._counts:
            return best_view(self.frames)
        return TrackRows.of(self._summary, self.frames).first_view(self.frames)

    @property
    def tracks(self) -> TrackRows:
        """The tracks, complete when `chunks` has been iterated to its end."""
        if self._counts:
            return TrackRows.of(summary_table(self._video_id, self._sums, None), self.frames)
        return TrackRows.of(self._summary, self.frames)

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        """Yield all frames with their boxes, in order, about `rows` boxes at a time.

        Raises:
            StorageError: The table cannot be read.
        """
        waiting = _Boxes.none()
        begin = 0
        for batch in video_batches(self._output, "tracks", self._video_id, _TRACK_COLUMNS):
            read = _Boxes.of(batch, self.frames)
            self.bars.add(read.track_id, read.frame)
            waiting = waiting.joined(read)
            # The last frame may have more rows in the next batch, so it is kept back.
            while len(waiting.frame) > rows and waiting.frame[-1] > begin:
                end = max(int(waiting.frame[rows]), begin + 1)
                chunk, waiting = waiting.split(int(np.searchsorted(waiting.frame, end)))
                yield self._chunk(begin, end, chunk)
                begin = end
        if begin < len(self.frames.index):
            yield self._chunk(begin, len(self.frames.index), waiting)

    def _chunk(self, begin: int, end: int, rows: _Boxes) -> Chunk:
        counts = np.bincount(rows.frame - begin, minlength=end - begin)
        first = np.r_[0, np.cumsum(counts)].astype(np.uint32)
        if self._counts:
            self._sums.add(
                {
                    "frame_index": self.frames.index[rows.frame],
                    "time_s": self.frames.time_s[rows.frame],
                    "track_id": rows.track_id,
                    **{side: rows.boxes[:, n] for n, side in enumerate("xywh")},
                    "score": rows.score,
                    "class_name": np.full(len(rows.frame), "", object),
                }
            )
        return Chunk(
            self.frames.time_s[begin:end], first, rows.track_id.astype(np.uint32), rows.boxes,
            rows.score,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Boxes:
    """Rows of `tracks`: position of the frame, id, (R, 4) x, y, w, h, score."""

    frame: Array
    track_id: Array
    boxes: Array
    score: Array

    @classmethod
    def none(cls) -> _Boxes:
        ids, numbers = np.zeros(0, np.int64), np.zeros(0, np.float32)
        return cls(ids, ids, numbers.reshape(0, 4), numbers)

    @classmethod
    def of(cls, batch: pa.RecordBatch, frames: FrameRows) -> _Boxes:
        index, ids, *box, score = (batch[name].to_numpy() for name in _TRACK_COLUMNS)
        return cls(np.searchsorted(frames.index, index), ids, np.stack(box, axis=1), score)

    def joined(self, other: _Boxes) -> _Boxes:
        return _Boxes(*(np.concatenate(pair) for pair in zip(self._all, other._all, strict=True)))

    def split(self, row: int) -> tuple[_Boxes, _Boxes]:
        return _Boxes(*(a[:row] for a in self._all)), _Boxes(*(a[row:] for a in self._all))

    @property
    def _all(self) -> tuple[Array, Array, Array, Array]:
        return self.frame, self.track_id, self.boxes, self.score
