"""Tracks as CVAT for video 1.1: VIDEO_ID.xml for each video, a <track> for each person.

Frames count from 0 and are those of the decoded video, as CVAT numbers them, whatever the time
between them. Only keyframes are written: CVAT interpolates between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TextIO
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from pipeline.exchange.config import TracksConfig
from pipeline.exchange.files import published_text
from pipeline.exchange.keyframes import runs, thinned
from pipeline.exchange.source import Rows, VideoTracks

_NOT_XML = re.compile("[^\\t\\n\\r\\u0020-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
_LEAST = 0.01  # pixels; a box without area is not valid


def write_cvat(run: str, output: str, videos: Iterable[VideoTracks], config: TracksConfig) -> int:
    """Write a file for each video; returns their number.

    Raises:
        StorageError: something cannot be read or written.
    """
    count = 0
    for tracks in videos:
        with published_text(f"{output}/{tracks.video.video_id}.xml") as file:
            _write(file, tracks, config)
        count += 1
    return count


def _write(file: TextIO, tracks: VideoTracks, config: TracksConfig) -> None:
    video, label = tracks.video, config.class_name
    last = video.frames - 1
    stop = f"      <stop_frame>{last}</stop_frame>\n" if video.frames else ""
    name = escape(_valid(video.relative_path))
    file.write(
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n'
        f"  <meta>\n    <task>\n      <name>{name}</name>\n      <size>{video.frames}</size>\n"
        "      <mode>interpolation</mode>\n      <overlap>0</overlap>\n"
        f"      <start_frame>0</start_frame>\n{stop}"
        "      <frame_filter></frame_filter>\n      <labels>\n        <label>\n"
        f"          <name>{escape(label)}</name>\n          <type>rectangle</type>\n"
        "          <attributes></attributes>\n        </label>\n      </labels>\n"
        f"      <original_size>\n        <width>{video.width}</width>\n"
        f"        <height>{video.height}</height>\n      </original_size>\n"
        f"      <source>{name}</source>\n    </task>\n  </meta>\n"
    )
    index, _ = tracks.frames()
    for track in tracks.tracks():
        file.write(f'  <track id="{track.track_id[0]}" label={quoteattr(label)} source="auto">\n')
        for frame, outside, corners in _boxes(track, index, last, config.tolerance_px):
            left, top, right, bottom = corners
            file.write(
                f'    <box frame="{frame}" keyframe="1" outside="{outside}" occluded="0" '
                f'xtl="{left:.2f}" ytl="{top:.2f}" xbr="{right:.2f}" ybr="{bottom:.2f}" '
                'z_order="0"></box>\n'
            )
        file.write("  </track>\n")
    file.write("</annotations>\n")


def _boxes(
    track: Rows, index: np.ndarray, last: int, tolerance: float
) -> Iterator[tuple[int, int, list[float]]]:
    """Yield frame, whether the track is outside from there on, and corners of the keyframes."""
    corners = np.round(
        np.concatenate([track.xywh[:, :2], track.xywh[:, :2] + track.xywh[:, 2:]], axis=1), 2
    )
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + _LEAST)
    for run in runs(np.searchsorted(index, track.frame)):
        frame, boxes = track.frame[run], corners[run]
        for row in thinned(frame, boxes, tolerance):
            yield int(frame[row]), 0, boxes[row].tolist()
        if frame[-1] < last:
            yield int(frame[-1]) + 1, 1, boxes[-1].tolist()


def _valid(text: str) -> str:
    """Text without the characters that XML cannot hold."""
    return _NOT_XML.sub("\ufffd", text)
