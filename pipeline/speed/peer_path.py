"""A detector and a tracker of other projects on one core: YOLOX and ByteTrack, decoding included.

The functions run in a process that keeps to one core (`one_core`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice

import numpy as np
from av.video.reformatter import VideoReformatter

from model.net.letterbox import Letterbox
from pipeline.datasets.boxes import Boxes
from pipeline.speed.readings import Reading
from pipeline.trackers.detectors import Detector, open_detector
from pipeline.trackers.peers import track_detections
from pipeline.video.decoder import Decoder
from pipeline.video.info import VideoInfo
from pipeline.video.picture import fit

TRUSTED = 0.6
"""Score from which a detection of YOLOX is high, as ByteTrack was published with."""


def peer_reading(info: VideoInfo, detector: str, frames: int) -> Reading:
    """Decode, detect and track the first frames of a video.

    libav scales the pictures to the detector's input size, which is faster than to decode to
    full RGB and scale that, and what a fast program does.

    Raises:
        DetectorError: The detector's file cannot be used.
        PeerError: The package of the tracker is not installed.
        DecodeError: No frame can be read.
    """
    detect = _opened(detector)
    wall, core = time.perf_counter(), time.process_time()
    detect_s, number, rows = 0.0, 0, []
    for number, picture in enumerate(_pictures(info, detect, frames), start=1):
        mark = time.perf_counter()
        boxes, scores = detect(picture)
        detect_s += time.perf_counter() - mark
        rows.append(np.column_stack([np.full(len(boxes), number), boxes, scores]))
    table = np.concatenate(rows)
    found = Boxes.of(table[:, 0], np.full(len(table), -1), table[:, 1:5], table[:, 5])
    _, track_s = track_detections("bytetrack", found, number, info.fps or 25.0, TRUSTED)
    wall, core = time.perf_counter() - wall, time.process_time() - core
    decode_s = wall - detect_s - track_s
    parts = {"decode": decode_s, "detect": detect_s, "track": track_s}
    return Reading(number, wall, core, {k: 1000 * s / number for k, s in parts.items()})


@lru_cache(maxsize=1)
def _opened(path: str) -> Detector:
    return open_detector(path)


def _pictures(
    info: VideoInfo, detect: Detector, frames: int
) -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    """RGB pictures (h, w, 3), as large as fits into the detector's input."""
    height, width = getattr(detect, "height", info.height), getattr(detect, "width", info.width)
    scale = min(height / info.height, width / info.width, 1.0)
    size = round(info.height * scale), round(info.width * scale)
    box, scaler = Letterbox(info.height, info.width, *size), VideoReformatter()
    decoded = Decoder(info, threads=1).frames()
    try:
        for _, _, picture in islice(decoded, frames):
            yield fit(picture, box, scaler)
    finally:
        decoded.close()
