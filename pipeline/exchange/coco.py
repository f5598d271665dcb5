"""Tracks as one COCO file with videos, in the style of CocoVID.

`videos`, `images` (a frame each, with `video_id` and `frame_id` from 0) and `annotations` (with
`track_id`, which is that of the tables, and `instance_id`, which no two videos share). The pictures
are named `VIDEO_ID/FRAME.jpg` with the number of the decoded frame in six digits; they are not
written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import numpy as np

from pipeline.exchange.config import TracksConfig
from pipeline.exchange.files import JsonArray, published_text
from pipeline.exchange.source import VideoTracks

FILE = "coco.json"
_LEAST = 0.01  # pixels; a box without area is not valid


def write_coco(run: str, output: str, videos: Iterable[VideoTracks], config: TracksConfig) -> int:
    """Write `coco.json`; returns the number of files, 1.

    Raises:
        StorageError: something cannot be read or written.
    """
    sections = {name: JsonArray() for name in ("videos", "images", "annotations")}
    numbers = _Numbers()
    categories = [{"id": 1, "name": config.class_name, "supercategory": ""}]
    with published_text(f"{output}/{FILE}") as file:
        for tracks in videos:
            _add(tracks, sections, numbers)
        file.write(f'{{"info": {{}}, "licenses": [], "categories": {json.dumps(categories)}')
        for name, section in sections.items():
            file.write(f',\n"{name}": ')
            section.write_to(file)
        file.write("}\n")
    return 1


class _Numbers:
    """Ids that were given so far."""

    def __init__(self) -> None:
        self.videos = self.images = self.annotations = self.instances = 0


def _add(tracks: VideoTracks, sections: dict[str, JsonArray], numbers: _Numbers) -> None:
    video = tracks.video
    numbers.videos += 1
    sections["videos"].add(
        json.dumps(
            {"id": numbers.videos, "name": video.relative_path, "video_id": video.video_id,
             "width": video.width, "height": video.height, "fps": video.fps,
             "length": video.frames}
        )
    )  # fmt: skip
    index, times = tracks.frames()
    # Frame f of this video is the image `before + f`.
    before = numbers.images + 1
    for frame, time_s in zip(index.tolist(), times.tolist(), strict=True):
        sections["images"].add(
            f'{{"id": {before + frame}, "file_name": "{video.video_id}/{frame:06d}.jpg", '
            f'"width": {video.width}, "height": {video.height}, "video_id": {numbers.videos}, '
            f'"frame_id": {frame}, "time_s": {time_s:.6f}}}'
        )
    numbers.images += max(video.frames, int(index[-1]) + 1 if len(index) else 0)
    instances: dict[int, int] = {}
    for rows in tracks.rows():
        boxes = np.round(rows.xywh, 2)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], _LEAST)
        columns = zip(rows.frame.tolist(), rows.track_id.tolist(), boxes.tolist(),
                      rows.score.tolist(), strict=True)  # fmt: skip
        for frame, track_id, (x, y, w, h), score in columns:
            numbers.annotations += 1
            if track_id not in instances:
                numbers.instances += 1
                instances[track_id] = numbers.instances
            sections["annotations"].add(
                f'{{"id": {numbers.annotations}, "image_id": {before + frame}, '
                f'"video_id": {numbers.videos}, "category_id": 1, "track_id": {track_id}, '
                f'"instance_id": {instances[track_id]}, "bbox": [{x:.2f}, {y:.2f}, {w:.2f}, '
                f'{h:.2f}], "area": {w * h:.4f}, "iscrowd": 0, '
                f'"segmentation": [], "score": {score:.4f}}}'
            )
