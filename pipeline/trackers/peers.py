"""Trackers of other projects on given detections: SORT, OC-SORT, ByteTrack (package `trackers`).

Each runs with its package's defaults, except for the score from which a detection is high. That
score depends on the detector, because scores of detectors are on different scales.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np

from pipeline.datasets.boxes import Boxes

PEERS = ("bytetrack", "ocsort", "sort")
_NEW_TRACK_MARGIN = 0.1  # ByteTrack starts tracks from 0.7, with a high threshold of 0.6
_LOW = 0.1  # least score in ByteTrack's second association, as published


class PeerError(RuntimeError):
    """The package of the peers is not installed."""


def track_detections(
    peer: str, detections: Boxes, frames: int, frame_rate: float, trusted: float
) -> tuple[Boxes, float]:
    """Track detections of frames 1 to `frames`; return the tracks and the seconds it took.

    Args:
        peer: One of `PEERS`.
        detections: With a score in [0, 1]. If scores are of another scale, as of public detections,
            all are set to 1.
        frames: Length of the sequence.
        frame_rate: Frames per second, for how long a lost track is kept.
        trusted: Score from which a detection is high.
    """
    try:
        import supervision as sv
    except ImportError as error:
        raise PeerError("peers need the package trackers; pip install 'vsdmot[eval]'") from error
    scores = detections.confidence
    if len(scores) and (scores.min() < 0 or scores.max() > 1):
        scores = np.ones_like(scores)
    # Only ByteTrack uses low detections.
    enough = scores >= (_LOW if peer == "bytetrack" else trusted)
    detections, scores = detections[enough], scores[enough]
    tracker = _make(peer, frame_rate, trusted)
    rows: list[tuple[float, ...]] = []
    started = time.perf_counter()
    for frame in range(1, frames + 1):
        first, last = np.searchsorted(detections.frame, (frame, frame + 1))
        xywh = detections.xywh[first:last]
        given = sv.Detections(
            xyxy=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1),
            confidence=scores[first:last],
            class_id=np.zeros(last - first, dtype=int),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of means over nothing in the package
            tracked = tracker.update(given)
        if tracked.tracker_id is None or tracked.confidence is None:
            continue
        for box, identity, score in zip(
            tracked.xyxy, tracked.tracker_id, tracked.confidence, strict=True
        ):
            x0, y0, x1, y1 = box
            if identity >= 0 and x1 > x0 and y1 > y0:
                rows.append((frame, identity, x0, y0, x1 - x0, y1 - y0, score))
    seconds = time.perf_counter() - started
    table = np.array(rows, dtype=float).reshape(-1, 7)
    # Ids start at 1 in results.
    return Boxes.of(table[:, 0], table[:, 1] + 1, table[:, 2:6], table[:, 6]), seconds


def _make(peer: str, frame_rate: float, trusted: float) -> Any:
    try:
        from trackers import ByteTrackTracker, OCSORTTracker, SORTTracker
    except ImportError as error:
        raise PeerError("peers need the package trackers; pip install 'vsdmot[eval]'") from error
    if peer == "bytetrack":
        return ByteTrackTracker(
            frame_rate=frame_rate,
            high_conf_det_threshold=trusted,
            track_activation_threshold=min(1.0, trusted + _NEW_TRACK_MARGIN),
        )
    if peer == "ocsort":
        return OCSORTTracker(frame_rate=frame_rate, high_conf_det_threshold=trusted)
    return SORTTracker(frame_rate=frame_rate, track_activation_threshold=trusted)
