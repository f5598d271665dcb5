"""Make the rows of one video from the model's tensors: of tracks, of frames, of the video."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from model.net.letterbox import Letterbox
from model.net.quality import STATISTICS
from model.track.frames import FrameResult, TrackableWindow
from pipeline.storage.schema import TRACKS
from pipeline.tracking.spool import RowSpools, TableSpool, stored_rows
from pipeline.trust.model import TrustModel
from pipeline.trust.summary import summary_table
from pipeline.trust.sums import TrackSums
from pipeline.video.decode import Frame
from pipeline.video.info import VideoInfo
from pipeline.video.only import ALL, Wanted

Columns = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class WindowRows:
    """The rows of a window of frames, by column."""

    tracks: Columns
    frames: Columns


class VideoTables(RowSpools):
    """The tables of one video while it is tracked, and the values for its row of `videos`.

    Rows go to disk by row groups. In RAM the quality and the index of each frame and one counter
    per track are kept, so that percentiles and medians are exact.

    Attributes:
        seams_s: Times of the seams between windows that were tracked apart.
        rejoined: Ids that later tracks got.
    """

    def __init__(self, info: VideoInfo) -> None:
        """Open the tables; errors as of `RowSpools`."""
        super().__init__(info.video_id)
        self._info = info
        self._quality = array("f")
        self._index = array("i")
        self.seams_s: list[float] = []
        self.rejoined: set[int] = set()
        self._cut_times_s = array("d")
        self._encoded = 0
        self._lengths = np.zeros(0, np.int32)  # of each track, by its id
        self._first_s = self._last_s = 0.0

    def add(self, window: WindowRows) -> None:
        """Append the rows of the next frames, at least one.

        Raises:
            SpoolError: The temporary folder is full.
        """
        self.add_tracks(window.tracks)
        self.add_frames(window.frames)

    def add_tracks(self, rows: Columns) -> None:
        """Append rows to `tracks`; errors as of `add`."""
        ids, counts = np.unique(rows["track_id"], return_counts=True)
        if len(ids) and ids[-1] >= len(self._lengths):
            self._lengths.resize(int(ids[-1]) * 5 // 4 + 1, refcheck=False)
        self._lengths[ids] += counts
        self.tracks.add(rows)

    def add_frames(self, rows: Columns) -> None:
        """Append rows to `frames`, at least one; errors as of `add`."""
        times = rows["time_s"]
        if not self._quality:
            self._first_s = float(times[0])
        self._last_s = float(times[-1])
        self._encoded += int(rows["encoded"].sum())
        self._quality.frombytes(rows["quality"].astype(np.float32).tobytes())
        self._index.frombytes(rows["frame_index"].astype(np.int32).tobytes())
        self._cut_times_s.extend(times[rows["cut"]].tolist())
        self.frames.add(rows)

    def relabel(self, ids: Mapping[int, int]) -> None:
        """Give tracks the ids of others, which must not be in the same frames; close `tracks`.

        Args:
            ids: New id by old id; other tracks keep theirs.

        Raises:
            SpoolError: The temporary folder is full.
        """
        new_ids = np.arange(len(self._lengths), dtype=np.int64)
        new_ids[list(ids)] = list(ids.values())
        relabelled = self._open.enter_context(TableSpool(TRACKS, self._info.video_id))
        for rows in whole_frames(stored_rows(self.tracks.finished())):
            relabelled.add(with_ids(rows, new_ids[rows["track_id"]]))
        self.tracks = relabelled
        lengths, self._lengths = self._lengths, np.zeros_like(self._lengths)
        np.add.at(self._lengths, new_ids, lengths)
        self.rejoined.update(ids.values())

    def track_summary(self, trust: TrustModel | None) -> pa.Table:
        """The table `track_summary` of the video. Closes `tracks`, which has to hold all rows.

        In RAM are one batch of rows, and some hundred bytes for each track.

        Args:
            trust: Gives the trust in tracks; None leaves it null.

        Raises:
            SpoolError: The temporary folder is full.
        """
        frame_index = np.frombuffer(self._index, np.int32)
        quality = np.frombuffer(self._quality, np.float32)
        sums = TrackSums((self._info.width, self._info.height), frame_index, quality)
        for rows in whole_frames(stored_rows(self.tracks.finished())):
            sums.add(rows)
        return summary_table(self._info.video_id, sums, trust, self.seams_s, self.rejoined)

    def summary(self, low_quality_below: float, measured: Mapping[str, Any]) -> dict[str, Any]:
        """The video's row of `videos`; needs at least one window.

        Args:
            low_quality_below: Frames of lower quality count in low_quality_share.
            measured: Fields that the rows do not have, `frames_decoded` among them, and `elapsed_s`
                for the rate.
        """
        quality = np.frombuffer(self._quality, np.float32)
        lengths = self._lengths[self._lengths > 0]
        p05, p50, p95 = (float(p) for p in np.percentile(quality, (5, 50, 95)))
        fields = dict(measured)
        elapsed_s = fields.pop("elapsed_s")
        return {
            **asdict(self._info),
            "frames_tracked": len(quality),
            "frames_encoded": self._encoded,
            "num_tracks": len(lengths),
            "track_length_mean": float(lengths.mean()) if len(lengths) else None,
            "track_length_median": float(np.median(lengths)) if len(lengths) else None,
            "track_length_max": int(lengths.max()) if len(lengths) else None,
            "video_s": self._covered_s(),
            "quality_mean": float(quality.mean()),
            "quality_p05": p05,
            "quality_p50": p50,
            "quality_p95": p95,
            "low_quality_share": float((quality < low_quality_below).mean()),
            "cut_times_s": list(self._cut_times_s),
            "frames_per_second": fields["frames_decoded"] / max(elapsed_s, 1e-9),
            **fields,
        }

    def _covered_s(self) -> float:
        """Seconds of footage in the frames read, with one mean interval for the last frame."""
        count = len(self._quality)
        if count > 1:
            span = self._last_s - self._first_s
            return span + span / (count - 1)
        return 1 / self._info.fps if self._info.fps else 0.0


def whole_frames(batches: Iterable[Columns]) -> Iterator[Columns]:
    """Rows of `tracks`, in batches that hold all rows of each of their frames."""
    kept: Columns | None = None
    for batch in batches:
        rows = batch if kept is None else {k: np.concatenate([kept[k], batch[k]]) for k in batch}
        index = rows["frame_index"]
        if not len(index):
            continue
        last = int(np.searchsorted(index, index[-1]))  # where the last frame begins
        if last:
            yield {name: values[:last] for name, values in rows.items()}
        kept = {name: values[last:] for name, values in rows.items()}
    if kept is not None:
        yield kept


def with_ids(rows: Columns, track_id: np.ndarray) -> Columns:
    """Rows of `tracks` of whole frames with other ids, sorted by frame and id."""
    order = np.lexsort((track_id, rows["frame_index"]))
    return {name: values[order] for name, values in (rows | {"track_id": track_id}).items()}


def window_rows(
    window: Sequence[Frame],
    encoded: TrackableWindow,
    results: Sequence[FrameResult],
    letterbox: Letterbox,
    classes: Sequence[str],
    wanted: Wanted = ALL,
) -> WindowRows:
    """Rows of one window of a video, with boxes in source pixels; empty boxes are dropped.

    Args:
        window: N frames.
        encoded: The same frames, encoded.
        results: Results of the N frames, each of batch size 1.
        letterbox: Map between canvas and the part of the frame that is tracked.
        classes: Class names by label.
        wanted: That part, and which boxes become rows.
    """
    # Slots of all frames in one row; their number may change from frame to frame.
    row = np.repeat(np.arange(len(results)), [r.track_id.shape[1] for r in results])
    track_id = _joined([r.track_id[0] for r in results])
    index = np.array([frame.index for frame in window], np.int64)
    time_s = np.array([frame.time_s for frame in window], np.float64)

    shown = np.flatnonzero(track_id >= 0)
    shown = shown[np.lexsort((track_id[shown], row[shown]))]
    canvas = _joined([r.boxes[0] for r in results])
    boxes = wanted.in_source(letterbox.to_source(canvas[shown])).astype(np.float32)
    size = boxes[:, 2:] - boxes[:, :2]
    class_name = np.array(classes, object)[_joined([r.labels[0] for r in results])[shown]]
    # Clipping makes a box in the padding empty.
    kept = (size > 0).all(axis=1) & wanted.keeps(boxes, class_name)
    shown, boxes, size, class_name = shown[kept], boxes[kept], size[kept], class_name[kept]
    row = row[shown]
    tracks = {
        "frame_index": index[row],
        "time_s": time_s[row],
        "track_id": track_id[shown],
        "x": boxes[:, 0],
        "y": boxes[:, 1],
        "w": size[:, 0],
        "h": size[:, 1],
        "score": _joined([r.scores[0] for r in results])[shown],
        "class_name": class_name,
        "semantic_weight": _joined([r.semantic_weight[0] for r in results])[shown],
    }
    statistics = encoded.statistics.float().cpu().numpy()
    frames = {
        "frame_index": index,
        "time_s": time_s,
        "quality": encoded.quality.float().cpu().numpy(),
        **{name: statistics[:, column] for column, name in enumerate(STATISTICS)},
        "semantic_weight": _joined([r.frame_weight for r in results]),
        "num_tracks": np.bincount(row, minlength=len(window)).astype(np.int32),
        "encoded": np.ones(len(window), bool),
        "cut": np.array([frame.cut for frame in window]),
    }
    return WindowRows(tracks, frames)


def _joined(parts: Sequence[torch.Tensor]) -> np.ndarray:
    """Join tensors (m, …) along their first axis, with one transfer from the device."""
    whole = torch.cat(list(parts))
    return (whole.float() if whole.is_floating_point() else whole).cpu().numpy()
