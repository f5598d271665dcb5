"""What tracking in windows costs: scores, and who crosses the seams with the right id."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from model.net.config import ModelConfig
from pipeline.benchmark.long.encode_once import Pass, track_together
from pipeline.benchmark.long.people import by_visit, first_followed, followed
from pipeline.benchmark.long.recording import FPS, Recording
from pipeline.benchmark.metrics import tracking_scores
from pipeline.datasets.boxes import Boxes, as_written
from pipeline.inference.runtime import Runtime
from pipeline.stitching.looks import Looks
from pipeline.stitching.stitch import Window, stitch
from pipeline.storage.files import list_videos
from pipeline.tracking.tables import Columns
from pipeline.tracking.track_video import TrackSettings
from pipeline.tracking.windows import WindowTimes, window_times
from pipeline.video.probe import probe

Row = dict[str, Any]
_NEAR = FPS  # frames on either side of a seam in which a person is looked for
_COLUMNS = ("frame_index", "time_s", "track_id", "x", "y", "w", "h")


def split_rows(
    model: Runtime,
    recording: Recording,
    settings: TrackSettings,
    counts: Sequence[int],
    overlap_s: float,
) -> list[Row]:
    """Scores of one pass over a recording, and of each number of windows.

    Args:
        model: The student, opened with the settings on a CPU.
        recording: The recording.
        settings: Of the tracking.
        counts: Numbers of windows.
        overlap_s: Seconds that two windows share.

    Raises:
        ProbeError, DecodeError, StorageError: The recording cannot be read.
        ChainBroken: Two windows do not share the frames that they should.
    """
    info = probe(next(list_videos(str(recording.path))))
    times = [
        [window_times(info, i, count, overlap_s) for i in range(count)] for count in (1, *counts)
    ]
    dim = model.config.dim
    passes = [[Pass(each.begin_s, each.end_s, Looks(dim)) for each in part] for part in times]
    track_together(model, info, settings, [part for parts in passes for part in parts])
    truth = by_visit(recording.gt, model.config.miss_tolerance)
    one_pass = boxes_of(passes[0][0].tracks())
    rows = []
    for windows, parts in zip(times, passes, strict=True):
        tracks, named, counters = _stitched(windows, parts, model.config, overlap_s)
        seams = [math.ceil(each.start_s * FPS) + 1 for each in windows[1:]]
        crossed = [crossings(truth, *sides) for sides in zip(named, named[1:], seams, strict=False)]
        held = [kept(truth, tracks, seam) for seam in seams]
        held_once = [kept(truth, one_pass, seam) for seam in seams]
        _, scores = tracking_scores({"recording": (truth, tracks)})
        rows.append(
            {
                "windows": len(windows),
                "frames": recording.frames,
                "hota": scores.hota,
                "idf1": scores.idf1,
                "id_switches": scores.id_switches,
                **counters,
                "crossings": sum(every for _, every in crossed),
                "crossed_right": sum(right for right, _ in crossed),
                "near": sum(every for _, every in held),
                "near_kept": sum(same for same, _ in held),
                "one_pass_near": sum(every for _, every in held_once),
                "one_pass_kept": sum(same for same, _ in held_once),
            }
        )
    for row in rows:
        row |= {f"{name}_lost": rows[0][name] - row[name] for name in ("hota", "idf1")}
    return rows


def boxes_of(tracks: Columns) -> Boxes:
    """Rows of the table of tracks as boxes, frames from 1."""
    xywh = np.stack([tracks[side] for side in "xywh"], axis=1)
    return as_written(
        Boxes.of(tracks["frame_index"] + 1, tracks["track_id"], xywh, tracks["score"])
    )


def crossings(truth: Boxes, left: Boxes, right: Boxes, seam: int) -> tuple[int, int]:
    """How many people cross a seam with the right id, and how many a perfect stitcher gives it.

    A perfect stitcher joins the tracks that follow one person in a frame that both windows share.

    Args:
        truth: Frames from 1.
        left, right: All tracks of the two windows, with ids and frames of the finished tables.
        seam: First frame behind the seam.
    """
    crossed: dict[int, bool] = {}
    for frame in range(seam - 1, max(0, seam - 1 - _NEAR), -1):
        ((a, b),) = zip(
            followed(truth, left, [frame]), followed(truth, right, [frame]), strict=True
        )
        crossed = {person: a[person] == b[person] for person in a.keys() & b.keys()} | crossed
    return sum(crossed.values()), len(crossed)


def kept(truth: Boxes, tracks: Boxes, seam: int) -> tuple[int, int]:
    """How many people have one id shortly before a frame and after, and how many have any.

    It counts what goes wrong in the tracker and at the seam alike.
    """
    before = first_followed(truth, tracks, range(seam - 1, max(0, seam - 1 - _NEAR), -1))
    after = first_followed(truth, tracks, range(seam, seam + _NEAR))
    both = before.keys() & after.keys()
    return sum(before[person] == after[person] for person in both), len(both)


def _stitched(
    times: Sequence[WindowTimes], parts: Sequence[Pass], config: ModelConfig, overlap_s: float
) -> tuple[Boxes, list[Boxes], dict[str, int]]:
    """Finished boxes of a video, all those of each window by finished ids, and the counters."""
    windows = [
        Window.of(
            pa.table({name: part.tracks()[name] for name in _COLUMNS}),
            pa.table({name: part.frames()[name] for name in _COLUMNS[:2]}),
            part.looks,
            each.start_s,
            math.inf if each.end_s is None else each.end_s,
            overlap_s,
        )
        for part, each in zip(parts, times, strict=True)
    ]
    stitched = stitch(
        windows,
        dim=config.dim,
        max_gap_s=config.miss_tolerance / FPS,
        rejoin_gap_s=0.0,
    )
    finished, named = [], []
    for part, window, ids, offset in zip(
        parts, windows, stitched.ids, stitched.frame_offsets, strict=True
    ):
        tracks = part.tracks()
        tracks["frame_index"] = tracks["frame_index"] + offset
        tracks["track_id"] = np.array(
            [ids.get(i, -1) for i in tracks["track_id"].tolist()], np.int64
        )
        known = tracks["track_id"] >= 0
        own = known & (tracks["time_s"] >= window.start_s) & (tracks["time_s"] < window.end_s)
        named.append(boxes_of({name: column[known] for name, column in tracks.items()}))
        finished.append({name: column[own] for name, column in tracks.items()})
    whole = {name: np.concatenate([rows[name] for rows in finished]) for name in finished[0]}
    return boxes_of(whole), named, stitched.counters
