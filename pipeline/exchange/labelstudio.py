"""Tracks as tasks of Label Studio: VIDEO_ID.json for each video, and `labeling_config.xml`.

Boxes are shares of the picture in percent, cut at its edges, because Label Studio refuses others.
Frames count from 1: the number of the decoded frame plus 1. Label Studio plays a video at a
constant rate, so for a video of variable rate its picture of a frame may be another one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, TextIO
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from pipeline.exchange.config import TracksConfig
from pipeline.exchange.files import published_text
from pipeline.exchange.keyframes import runs, thinned
from pipeline.exchange.source import Rows, SourceVideo, VideoTracks
from pipeline.storage.files import write_atomic

CONFIG_FILE = "labeling_config.xml"
_LEAST = 0.01  # pixels; a smaller side would be rounded to none


def write_labelstudio(
    run: str, output: str, videos: Iterable[VideoTracks], config: TracksConfig
) -> int:
    """Write a task for each video, and the labelling interface; returns the number of files.

    Raises:
        StorageError: something cannot be read or written.
    """
    count = 0
    for tracks in videos:
        with published_text(f"{output}/{tracks.video.video_id}.json") as file:
            _write(file, tracks, config)
        count += 1
    write_atomic(f"{output}/{CONFIG_FILE}", labeling_config(config.class_name).encode())
    return count + 1


def labeling_config(label: str) -> str:
    """The labelling interface that the tasks fit."""
    return (
        '<View>\n  <Video name="video" value="$video" frameRate="$fps"/>\n'
        '  <VideoRectangle name="box" toName="video"/>\n'
        f'  <Labels name="label" toName="video">\n    <Label value={quoteattr(label)}/>\n'
        "  </Labels>\n</View>\n"
    )


def _write(file: TextIO, tracks: VideoTracks, config: TracksConfig) -> None:
    video = tracks.video
    data = {
        "video": config.video_prefix + quote(video.relative_path, safe="/"),
        "fps": video.fps,
        "video_id": video.video_id,
        "relative_path": video.relative_path,
    }
    file.write(
        f'[{{"data": {json.dumps(data)}, "predictions": [{{"model_version": "vsdmot", "result": ['
    )
    index, _ = tracks.frames()
    between = ""
    for track in tracks.tracks():
        sequence = list(_sequence(track, index, video, config.tolerance_px))
        if sequence:
            file.write(between + json.dumps(_region(track, sequence, video, config.class_name)))
            between = ",\n"
    file.write("]}]}]\n")


def _region(
    track: Rows, sequence: list[dict[str, Any]], video: SourceVideo, label: str
) -> dict[str, Any]:
    value = {
        "framesCount": video.frames,
        "duration": round(video.seconds, 6),
        "sequence": sequence,
        "labels": [label],
    }
    return {
        "id": f"track-{track.track_id[0]}",
        "type": "videorectangle",
        "from_name": "box",
        "to_name": "video",
        "value": value,
        "meta": {"text": [f"track {track.track_id[0]}"]},
    }


def _sequence(
    track: Rows, index: np.ndarray, video: SourceVideo, tolerance: float
) -> Iterator[dict[str, Any]]:
    """Yield the keyframes. From one that is not enabled the box is hidden, after its own frame."""
    size = np.array([video.width, video.height, video.width, video.height], np.float64)
    low = np.clip(track.xywh[:, :2], 0, size[:2])
    high = np.clip(track.xywh[:, :2] + track.xywh[:, 2:], 0, size[:2])
    inside = (high - low >= _LEAST).all(axis=1)
    frames, times = track.frame[inside], track.time_s[inside]
    boxes = np.concatenate([low, high - low], axis=1)[inside]
    for run in runs(np.searchsorted(index, frames)):
        rows = thinned(frames[run], boxes[run], tolerance)
        for row in (np.array(rows) + run.start).tolist():
            x, y, w, h = (100 * boxes[row] / size).round(4).tolist()
            yield {
                "frame": int(frames[row]) + 1, "time": round(float(times[row]), 6),
                "x": x, "y": y, "width": w, "height": h, "rotation": 0,
                "enabled": row != run.stop - 1,
            }  # fmt: skip
