"""The student on sequences with ground truth: predictions of each, and the rows of their scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from model.letterbox import Letterbox
from model.tracker import FrameResult, Tracker
from pipeline.decode import FrameStream
from pipeline.metrics import (
    DetectionScores,
    TrackingScores,
    detection_scores,
    evaluated,
    preprocess,
    tracking_scores,
)
from pipeline.mot import Boxes, MotError, Sequence
from pipeline.probe import probe
from pipeline.storage import list_videos
from pipeline.tables import window_rows
from pipeline.track import batch_window

# Detections below add nothing to average precision but time.
_LOWEST_SCORE = 0.01
_QUEUE = 32


@dataclass(frozen=True, slots=True)
class Predictions:
    """What the student said of one sequence, boxes in its video's pixels."""

    tracks: Boxes
    detections: Boxes
    frames: int
    seconds: float
    problem: str | None


@torch.inference_mode()
def track_sequence(
    tracker: Tracker, sequence: Sequence, window: int, device: str, progress: Callable[[int], None]
) -> Predictions:
    """Track one sequence from its video file, frame by frame through the real decoder.

    Raises:
        MotError: The sequence has pictures and no video.
        ProbeError, DecodeError, StorageError: The video cannot be read.
    """
    if not sequence.video.is_file():
        raise MotError(
            f"{sequence.folder}: has no video file; make one, e.g. ffmpeg -framerate "
            f"{sequence.frame_rate:g} -i {sequence.video.name}/%06d.jpg -crf 12 video.mp4"
        )
    config = tracker.config
    info = probe(next(list_videos(str(sequence.video))))
    state = tracker.initial_state(1)
    tracks, detections = [], []
    started = time.perf_counter()
    with FrameStream(info, config.input_height, config.input_width, _QUEUE) as stream:
        frames = iter(stream)
        while batch := list(islice(frames, window)):
            box = stream.letterbox
            memory = tracker.encode(*batch_window(batch, box, device))
            results, state = tracker.track(memory, state)
            tracks.append(window_rows(batch, memory, results, box, config.classes).tracks)
            detections += [
                _detections(result, frame.index, box)
                for frame, result in zip(batch, results, strict=True)
            ]
            progress(len(batch))
        error, decoded = stream.error, stream.decoded
    seconds = time.perf_counter() - started
    problem = error
    if decoded != sequence.length:
        counts = f"{decoded} frames decoded, seqinfo.ini says {sequence.length}"
        problem = f"{counts}; {error}" if error else counts
    table = {name: np.concatenate([t[name] for t in tracks]) for name in tracks[0]}
    xywh = np.stack([table[name] for name in "xywh"], axis=1)
    return Predictions(
        Boxes.of(table["frame_index"] + 1, table["track_id"], xywh, table["score"]),
        Boxes.of(
            np.concatenate([d.frame for d in detections]),
            -1,
            np.concatenate([d.xywh for d in detections]),
            np.concatenate([d.confidence for d in detections]),
        ),
        decoded,
        seconds,
        problem,
    )


def _detections(result: FrameResult, index: int, box: Letterbox) -> Boxes:
    """Every live query's box of one frame as a detection, before the lifecycle's thresholds."""
    scores = result.detections_scores[0].float().cpu().numpy()
    corners = box.to_source(result.detections_boxes[0].float().cpu().numpy())
    xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    keep = (scores >= _LOWEST_SCORE) & (xywh[:, 2:] > 0).all(axis=1)
    return Boxes.of(np.full(keep.sum(), index + 1), -1, xywh[keep], scores[keep])


def score(
    sequences: Mapping[str, Sequence],
    predictions: Mapping[str, Predictions],
    apart: Collection[str],
    birth_threshold: float,
    preprocessing: bool,
) -> list[dict[str, Any]]:
    """A row for each sequence, then the plain mean and the combined row of those not apart."""
    pairs, found = {}, {}
    for name, sequence in sequences.items():
        tracks = predictions[name].tracks
        pairs[name] = (
            preprocess(sequence.gt, tracks) if preprocessing else (evaluated(sequence.gt), tracks)
        )
        found[name] = (sequence.gt, predictions[name].detections, sequence.length)
    rows = []
    each, _ = tracking_scores(pairs)
    for name in sequences:
        one = detection_scores({name: found[name]}, birth_threshold, preprocessing)
        p = predictions[name]
        rows.append(
            _row(name, each[name], one, p.frames, p.seconds, name in apart) | {"problem": p.problem}
        )
    counted = [name for name in sequences if name not in apart]
    if counted:
        means = {
            key: float(np.nanmean([row[key] for row in rows if not row["apart"]]))
            for key, value in rows[0].items()
            if isinstance(value, float)
        }
        rows.append({"sequence": "MEAN", "apart": False} | means)
        _, combined = tracking_scores({name: pairs[name] for name in counted})
        pooled = detection_scores(
            {name: found[name] for name in counted}, birth_threshold, preprocessing
        )
        frames = sum(predictions[name].frames for name in counted)
        seconds = sum(predictions[name].seconds for name in counted)
        rows.append(_row("COMBINED", combined, pooled, frames, seconds, apart=False))
    return rows


def _row(
    name: str,
    tracking: TrackingScores,
    detection: DetectionScores,
    frames: int,
    seconds: float,
    apart: bool,
) -> dict[str, Any]:
    return {
        "sequence": name,
        "apart": apart,
        "frames": frames,
        **asdict(detection),
        **asdict(tracking),
        "frames_per_second": frames / seconds,
    }
