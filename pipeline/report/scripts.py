"""Data of a page as scripts: a page opened from a disk may load scripts, but not read other files.

Names stand in JSON texts, which a browser never takes for HTML because pages set them as text.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.report.frame_rows import Array, Curves, FrameRows
from pipeline.report.track_sums import TrackSums
from pipeline.report.video_tables import Chunk

_FULL = 65_535  # a coordinate as a share of the picture, in 16 bits


def assigned(name: str, value: Any) -> bytes:
    """A script that sets a property of `report`."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return f"report.{name}={text};\n".encode()


def boxes_script(number: int, chunk: Chunk, width: int, height: int) -> bytes:
    """A script with the boxes of some frames: little-endian arrays in base64.

    Args:
        number: of the chunk in its video, from 0.
        chunk: the boxes.
        width, height: size of the picture in pixels.
    """
    corners = chunk.boxes.astype(np.float64)
    corners[:, 2:] += corners[:, :2]
    shares = corners / np.array([width, height, width, height], np.float64)
    value = {
        "times": _packed(chunk.time_s, "<f8"),
        "first": _packed(chunk.first, "<u4"),
        "ids": _packed(chunk.track_id, "<u4"),
        "corners": _packed((shares.clip(0, 1) * _FULL).round(), "<u2"),
        "scores": _packed((chunk.score.clip(0, 1) * 255).round(), "u1"),
    }
    text = json.dumps(value, separators=(",", ":"))
    return f"report.addBoxes({number},{text});\n".encode()


def curves_value(curves: Curves) -> dict[str, Any]:
    """Curves for JSON; null where there is no frame."""
    return {
        "step": curves.step_s,
        "quality": rounded(curves.quality),
        "qualityLow": rounded(curves.quality_low),
        "weight": rounded(curves.semantic_weight),
        "people": rounded(curves.people, 1),
    }


def tracks_value(tracks: TrackSums, frames: FrameRows, tiles: Mapping[int, int]) -> dict[str, Any]:
    """Tracks for JSON, a list for each field, in order of the first frame.

    Args:
        tracks: all tracks.
        frames: the frames that they refer to.
        tiles: place of a track's crop on the sheets, by id.
    """
    ids, time_s = tracks.ids, frames.time_s
    return {
        "id": ids.tolist(),
        "start": rounded(time_s[tracks.first[ids]]),
        "end": rounded(time_s[tracks.last[ids]] + frames.interval_s),
        "frames": tracks.rows[ids].tolist(),
        "score": rounded(tracks.score[ids] / tracks.rows[ids], 2),
        "quality": rounded(tracks.quality[ids] / tracks.rows[ids], 2),
        "view": rounded(time_s[tracks.best_frame[ids]]),
        "tile": [tiles.get(number, -1) for number in ids.tolist()],
    }


def bars_value(tracks: TrackSums, frames: FrameRows) -> dict[str, Any]:
    """Stretches in which tracks were seen, for JSON; `track` is a place in `tracks_value`."""
    ids, start, end = tracks.bars()
    place = np.zeros(int(ids.max()) + 1 if len(ids) else 0, np.int64)
    place[tracks.ids] = np.arange(len(tracks.ids))
    return {
        "track": place[ids].tolist(),
        "start": rounded(frames.time_s[start]),
        "end": rounded(frames.time_s[end] + frames.interval_s),
    }


def rounded(values: Array, digits: int = 3) -> list[float | None]:
    """Numbers with few digits; null for NaN."""
    return [None if v != v else v for v in np.round(values.astype(np.float64), digits).tolist()]


def _packed(values: Array, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, np.dtype(kind)).tobytes()).decode()
