"""From the model's tensors to the rows of one video: tracks, frames, and the video's own row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import torch

from model.letterbox import Letterbox
from model.quality import STATISTICS
from model.tracker import FrameResult, Memory
from pipeline.decode import Frame
from pipeline.probe import VideoInfo
from pipeline.schema import FRAMES, TRACKS

Columns = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class WindowRows:
    """The rows of a window of frames, by column."""

    tracks: Columns
    frames: Columns


@dataclass(frozen=True, slots=True)
class VideoTables:
    """All rows of one video: tables of the schema, and the row of `videos`."""

    tracks: pa.Table
    frames: pa.Table
    video: dict[str, object]


def window_rows(
    window: Sequence[Frame],
    memory: Memory,
    results: Sequence[FrameResult],
    letterbox: Letterbox,
    classes: Sequence[str],
) -> WindowRows:
    """Rows of one stream's window; boxes in source pixels, none of them empty.

    Args:
        window: N frames.
        memory: Their encoding.
        results: Their N results, of a batch of one.
        letterbox: How the frames lie on the canvas.
        classes: Class names by label.
    """
    track_id = _stack([r.track_id for r in results])  # (N, M), as the next three
    scores = _stack([r.scores for r in results])
    labels = _stack([r.labels for r in results])
    weights = _stack([r.semantic_weight for r in results])
    canvas = _stack([r.boxes for r in results])  # (N, M, 4)
    index = np.array([frame.index for frame in window], np.int64)
    time_s = np.array([frame.time_s for frame in window], np.float64)

    row, slot = np.nonzero(track_id >= 0)
    order = np.lexsort((track_id[row, slot], row))
    row, slot = row[order], slot[order]
    boxes = letterbox.to_source(canvas[row, slot]).astype(np.float32)
    size = boxes[:, 2:] - boxes[:, :2]
    inside = (size > 0).all(axis=1)  # a box wholly in the padding is clipped to nothing
    row, slot, boxes, size = row[inside], slot[inside], boxes[inside], size[inside]
    tracks = {
        "frame_index": index[row],
        "time_s": time_s[row],
        "track_id": track_id[row, slot],
        "x": boxes[:, 0],
        "y": boxes[:, 1],
        "w": size[:, 0],
        "h": size[:, 1],
        "score": scores[row, slot],
        "class_name": np.array(classes, object)[labels[row, slot]],
        "semantic_weight": weights[row, slot],
    }
    statistics = memory.statistics.float().cpu().numpy()
    frames = {
        "frame_index": index,
        "time_s": time_s,
        "quality": memory.quality.float().cpu().numpy(),
        **{name: statistics[:, column] for column, name in enumerate(STATISTICS)},
        "semantic_weight": _stack([r.frame_weight for r in results]),
        "num_tracks": np.bincount(row, minlength=len(window)).astype(np.int32),
    }
    return WindowRows(tracks, frames)


def video_tables(
    info: VideoInfo,
    windows: Sequence[WindowRows],
    low_quality_below: float,
    measured: Mapping[str, object],
) -> VideoTables:
    """Put a video's windows together and sum them up.

    Args:
        info: What the header says.
        windows: At least one.
        low_quality_below: Frames of lower quality count as low.
        measured: The fields of `videos` that the rows do not tell; `elapsed_s` gives the rate.
    """
    tracks = _table(info.video_id, [w.tracks for w in windows], TRACKS)
    frames = _table(info.video_id, [w.frames for w in windows], FRAMES)
    quality = frames["quality"].to_numpy()
    times = frames["time_s"].to_numpy()
    _, lengths = np.unique(tracks["track_id"].to_numpy(), return_counts=True)
    p05, p50, p95 = (float(p) for p in np.percentile(quality, (5, 50, 95)))
    fields = dict(measured)
    elapsed_s = float(str(fields.pop("elapsed_s")))
    video = {
        **asdict(info),
        "frames_decoded": len(frames),
        "num_tracks": len(lengths),
        "track_length_mean": float(lengths.mean()) if len(lengths) else None,
        "track_length_median": float(np.median(lengths)) if len(lengths) else None,
        "track_length_max": int(lengths.max()) if len(lengths) else None,
        "video_s": _covered_s(times, info.fps),
        "quality_mean": float(quality.mean()),
        "quality_p05": p05,
        "quality_p50": p50,
        "quality_p95": p95,
        "low_quality_share": float((quality < low_quality_below).mean()),
        "frames_per_second": len(frames) / max(elapsed_s, 1e-9),
        **fields,
    }
    return VideoTables(tracks, frames, video)


def _covered_s(times: np.ndarray, fps: float | None) -> float:
    """Seconds of footage in the frames read: the last one is shown for one interval as well."""
    if len(times) > 1:
        span = float(times[-1] - times[0])
        return span + span / (len(times) - 1)
    return 1 / fps if fps else 0.0


def _table(video_id: str, windows: Sequence[Columns], schema: pa.Schema) -> pa.Table:
    rows = sum(len(window["frame_index"]) for window in windows)
    columns = [
        pa.chunked_array([pa.array(w[field.name], field.type) for w in windows], field.type)
        for field in schema
        if field.name != "video_id"
    ]
    ids = pa.chunked_array([pa.repeat(pa.scalar(video_id), rows)])
    return pa.Table.from_arrays([ids, *columns], schema=schema).combine_chunks()


def _stack(rows: Sequence[torch.Tensor]) -> np.ndarray:
    """Results of a window, a batch of one each, in one transfer: N x (1, …) to (N, …)."""
    stacked = torch.cat(list(rows))
    return (stacked.float() if stacked.is_floating_point() else stacked).cpu().numpy()
