"""Which stretches of an archive are tracked for a trial, so that they stand for all of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.archive.plan import length_s
from pipeline.planning.wanted import wanted_frames, wanted_stretch
from pipeline.tracking.config import TrackConfig
from pipeline.video.info import VideoInfo

_GOLDEN = (math.sqrt(5) - 1) / 2
_ROOM_S = 20.0  # of video after the place where a stretch begins, where there is as much


@dataclass(frozen=True, slots=True)
class Stretch:
    """A place in a video.

    Attributes:
        info: The video.
        start_s: Seconds of video at which tracking begins; None is the start of what is wanted.
    """

    info: VideoInfo
    start_s: float | None


def stretches(videos: Sequence[VideoInfo], config: TrackConfig) -> Iterator[Stretch]:
    """Places in the videos, without end; any number of the first ones is spread evenly.

    All frames of the archive lie on one line, videos sorted by the size of their picture. Places
    follow each other by the golden ratio. So each frame has the same chance, and sizes have their
    share.

    Args:
        videos: At least one.
        config: What is wanted of a video.
    """
    ordered = sorted(videos, key=lambda v: (v.width * v.height, v.video_id))
    ends = np.cumsum([wanted_frames(info, config) for info in ordered])
    at = 0.5
    while True:
        place = at * ends[-1]
        number = int(np.searchsorted(ends, place, side="right"))
        info = ordered[number]
        share = 1 - (ends[number] - place) / wanted_frames(info, config)
        yield Stretch(info, _start_s(info, config, share))
        at = (at + _GOLDEN) % 1


def _start_s(info: VideoInfo, config: TrackConfig, share: float) -> float | None:
    seconds = length_s(info)
    if seconds is None:
        return None
    begin_s, end_s = wanted_stretch(config, seconds)
    latest_s = end_s - _ROOM_S
    start_s = min(begin_s + share * (end_s - begin_s), latest_s)
    return start_s if start_s > begin_s else None
