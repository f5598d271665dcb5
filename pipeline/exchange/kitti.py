"""Tracks as KITTI tracking labels: `label_02/NAME.txt`, as its devkit and TrackEval read them.

Frames count from 0 and are those of the decoded video. KITTI's own videos have 10 frames a second;
the format has no place for another rate. What a tracker in the picture does not know (truncation,
occlusion, size, place) has the value that KITTI uses for unknown.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pipeline.exchange.config import TracksConfig
from pipeline.exchange.files import published_text
from pipeline.exchange.names import TextFiles
from pipeline.exchange.source import Rows, VideoTracks

_TYPES = {"person": "Pedestrian", "car": "Car", "bicycle": "Cyclist"}
_LEAST = 0.01  # pixels; a box without area is not valid


def write_kitti(run: str, output: str, videos: Iterable[VideoTracks], config: TracksConfig) -> int:
    """Write a label file for each video; returns their number.

    Raises:
        ExportError: two videos have one name.
        StorageError: something cannot be read or written.
    """
    names, count = TextFiles(run), 0
    for tracks in videos:
        [name] = names.of(tracks.video.relative_path)
        with published_text(f"{output}/label_02/{name}") as file:
            for rows in tracks.rows():
                file.writelines(_lines(rows))
        count += 1
    return count


def _lines(rows: Rows) -> list[str]:
    left_top = np.round(rows.xywh[:, :2], 2)
    right_bottom = np.maximum(np.round(rows.xywh[:, :2] + rows.xywh[:, 2:], 2), left_top + _LEAST)
    columns = zip(
        rows.frame.tolist(), rows.track_id.tolist(), rows.class_name.tolist(), left_top.tolist(),
        right_bottom.tolist(), rows.score.tolist(), strict=True,
    )  # fmt: skip
    return [
        f"{frame} {track} {_TYPES.get(kind, 'Misc')} -1 -1 -10 {left:.2f} {top:.2f} {right:.2f} "
        f"{bottom:.2f} -1 -1 -1 -1000 -1000 -1000 -10 {score:.4f}\n"
        for frame, track, kind, (left, top), (right, bottom), score in columns
    ]
