"""How much of a video the settings want."""

from __future__ import annotations

from pipeline.archive.plan import length_s
from pipeline.tracking.config import TrackConfig
from pipeline.video.info import VideoInfo
from pipeline.video.limits import frames_guessed


def wanted_frames(info: VideoInfo, config: TrackConfig) -> float:
    """Frames of the stretch of a video that the settings want, those between samples too.

    At least 1: a header that tells of none may be wrong.
    """
    frames, seconds = min(frames_guessed(info), config.limits.max_frames), length_s(info)
    if not seconds or config.only.whole_videos:
        return float(max(1, frames))
    start_s, end_s = wanted_stretch(config, seconds)
    return max(1.0, frames * (end_s - start_s) / seconds)


def wanted_stretch(config: TrackConfig, seconds: float) -> tuple[float, float]:
    """Where the stretch begins and ends in a video of so many seconds."""
    end_s = seconds if config.only.end_s is None else min(seconds, config.only.end_s)
    return config.only.start_s, end_s
