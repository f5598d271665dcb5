"""What skipping still frames costs: scores with and without it, real and on mostly quiet video.

Few sequences with ground truth have quiet stretches, so quiet video is made of them: every second
of the sequence is preceded by its first frame, held for four seconds. Held or not, each frame gets
noise of its own from a seed, and all is encoded by a real codec.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq

from pipeline.benchmark.metrics import iou_matrix, preprocess, tracking_scores
from pipeline.datasets.boxes import Boxes, as_written
from pipeline.datasets.mot import Sequence as MotSequence
from pipeline.inference.runtime import Runtime
from pipeline.storage.files import list_videos
from pipeline.tracking.tables import VideoTables
from pipeline.tracking.track_video import TrackSettings
from pipeline.tracking.whole_video import track_video
from pipeline.video.decode import iterate_frames
from pipeline.video.info import VideoInfo
from pipeline.video.probe import probe

Row = dict[str, Any]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]

_QUIET = 4  # seconds held for each second of motion: four fifths are quiet
_READ_NOISE, _SHOT_NOISE = 2.0, 0.15  # in levels, and in levels squared a level
_FOUND_IOU, _FOUND_SHARE = 0.5, 0.2


def still_row(
    model: Runtime, video: Path, name: str, gt: Boxes, settings: TrackSettings
) -> tuple[Row, str | None]:
    """Scores of one video with and without still frames skipped.

    A person counts as found if tracks overlap at least a fifth of their boxes by one half. By the
    usual rule, whoever is not found is mostly lost.

    Args:
        model: The student, opened with the settings.
        video: The video.
        name: Its name in the row.
        gt: Its ground truth.
        settings: Of the tracking.

    Returns:
        The row, and the reason if the video could not be read to its end.

    Raises:
        ProbeError, DecodeError, StorageError: The video cannot be read.
    """
    info = probe(next(list_videos(str(video))))
    on, row = _tracked(model, info, replace(settings, skip_still=True))
    off = on
    # If no frame is skipped, the same is computed without skipping.
    if row["frames_encoded"] < row["frames_tracked"]:
        off, _ = _tracked(model, info, replace(settings, skip_still=False))
    people, off = preprocess(gt, off)
    _, on = preprocess(gt, on)
    _, scores_off = tracking_scores({name: (people, off)})
    _, scores_on = tracking_scores({name: (people, on)})
    return {
        "sequence": name,
        "frames": row["frames_tracked"],
        "encoded": row["frames_encoded"],
        "hota_off": scores_off.hota,
        "hota_on": scores_on.hota,
        "idf1_off": scores_off.idf1,
        "idf1_on": scores_on.idf1,
        "people_off": len(found(people, off)),
        "people_on": len(found(people, on)),
        "people_lost": len(found(people, off) - found(people, on)),
    }, row["error"]


def found(gt: Boxes, tracks: Boxes) -> set[int]:
    """Identities of the ground truth that are found, see `still_row`."""
    covered = np.zeros(len(gt), bool)
    for frame in np.unique(gt.frame):
        rows = gt.frame == frame
        overlap = iou_matrix(gt.xywh[rows], tracks.at(frame).xywh)
        covered[rows] = overlap.max(axis=1, initial=0.0) >= _FOUND_IOU
    identities = np.unique(gt.track_id)
    return {int(i) for i in identities if covered[gt.track_id == i].mean() >= _FOUND_SHARE}


def quiet_order(frames: int, fps: float) -> list[int]:
    """For each frame of the mostly quiet video, the frame of the sequence that it shows."""
    second = max(1, round(fps))
    order: list[int] = []
    for start in range(0, frames, second):
        moving = range(start, min(start + second, frames))
        order += [start] * (_QUIET * len(moving)) + list(moving)
    return order


def quiet_truth(gt: Boxes, order: Sequence[int]) -> Boxes:
    """Ground truth of the mostly quiet video; frames of boxes count from 1."""
    parts = [gt.at(shown + 1) for shown in order]
    frame = np.repeat(np.arange(1, len(order) + 1), [len(part) for part in parts])
    columns = ("track_id", "xywh", "confidence", "class_id", "visibility")
    return Boxes.of(frame, *(np.concatenate([getattr(p, c) for p in parts]) for c in columns))


def write_quiet(sequence: MotSequence, frames: int, path: Path, seed: int = 0) -> list[int]:
    """Write the mostly quiet video of a sequence's first frames as H.264; returns its order.

    The seed decides the noise. The bits of x264 differ a little from run to run.
    """
    info = probe(next(list_videos(str(sequence.video))))
    pictures = [pixels for _, _, pixels in islice(iterate_frames(info), frames)]
    order = quiet_order(len(pictures), sequence.frame_rate)
    height, width = (side // 2 * 2 for side in pictures[0].shape[:2])
    with av.open(str(path), "w") as container:
        rate = max(1, round(sequence.frame_rate))
        stream: Any = container.add_stream("libx264", rate=rate, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for pixels in _noisy(pictures, order, seed):
            frame = av.VideoFrame.from_ndarray(pixels[:height, :width], format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return order


def _noisy(pictures: Sequence[Pixels], order: Sequence[int], seed: int) -> Iterator[Pixels]:
    """Pictures with noise that grows with the light, as of a sensor, new in each frame."""
    for number, shown in enumerate(order):
        draw = np.random.default_rng([seed, number])
        clean = pictures[shown].astype(np.float32)
        noise = draw.standard_normal(clean.shape, np.float32)
        noise *= np.sqrt(_READ_NOISE**2 + _SHOT_NOISE * clean)
        yield np.ascontiguousarray((clean + noise).clip(0, 255).astype(np.uint8))


def _tracked(model: Runtime, info: VideoInfo, settings: TrackSettings) -> tuple[Boxes, Row]:
    with VideoTables(info) as tables:
        row = track_video(model, info, settings, tables)
        tracks = pq.read_table(tables.tracks.finished())
    frame, track_id, score = (
        tracks[name].to_numpy() for name in ("frame_index", "track_id", "score")
    )
    xywh = np.stack([tracks[side].to_numpy() for side in "xywh"], axis=1)
    return as_written(Boxes.of(frame + 1, track_id, xywh, score)), row
