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
from pipeline.report.track_bars import TrackBars
from pipeline.report.track_rows import TrackRows
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


def tracks_value(tracks: TrackRows, frames: FrameRows, tiles: Mapping[int, int]) -> dict[str, Any]:
    """Tracks for JSON, a list for each field.

    Args:
        tracks: all tracks.
        frames: the frames that they refer to.
        tiles: place of a track's crop on the sheets, by id.
    """
    ids = tracks.id.tolist()
    return {
        "id": ids,
        "start": rounded(tracks.first_s),
        "end": rounded(tracks.last_s + frames.interval_s),
        "frames": tracks.boxes.tolist(),
        "score": rounded(tracks.score, 2),
        "quality": rounded(tracks.quality, 2),
        "trust": rounded(tracks.trust, 4),  # two digits would make 0.497 a trust of 0.5
        "view": rounded(frames.time_s[tracks.best]),
        "tile": [tiles.get(number, -1) for number in ids],
    }


def bars_value(bars: TrackBars, tracks: TrackRows, frames: FrameRows) -> dict[str, Any]:
    """Stretches in which tracks were seen, for JSON; `track` is a place in `tracks_value`."""
    ids, start, end = bars.bars()
    place = {number: at for at, number in enumerate(tracks.id.tolist())}
    return {
        "track": [place[number] for number in ids.tolist()],
        "start": rounded(frames.time_s[start]),
        "end": rounded(frames.time_s[end] + frames.interval_s),
    }


def rounded(values: Array, digits: int = 3) -> list[float | None]:
    """Numbers with few digits; null for NaN."""
    return [None if v != v else v for v in np.round(values.astype(np.float64), digits).tolist()]


def _packed(values: Array, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, np.dtype(kind)).tobytes()).decode()
