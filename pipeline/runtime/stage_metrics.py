"""Metrics of a run for Prometheus, through Ray: each node of a cluster offers them.

Ray puts `ray_` before these names, and adds labels of its own for session, node and process. Labels
of this project have few values: never a video, a path or a run. Without Ray there are no metrics.
"""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge

FRAME_STAGES = ("decoded", "encoded", "tracked")
TIME_STAGES = ("decode", "decode_wait", "encode", "step", "write")
OUTCOMES = ("ok", "partial", "dead", "unread")

FRAMES = "vsdmot_frames"
VIDEO_SECONDS = "vsdmot_video_seconds"
STAGE_SECONDS = "vsdmot_stage_seconds"
VIDEOS = "vsdmot_videos"
VIDEOS_OPEN = "vsdmot_videos_open"


class WorkerMetrics:
    """What a worker counts."""

    def __init__(self) -> None:
        """Declare the metrics; the process has to be one of Ray's."""
        self._frames = Counter(FRAMES, "Frames that went through a stage.", ("stage",))
        self._seconds = Counter(
            STAGE_SECONDS,
            "Seconds of workers by stage. decode runs beside the others; decode_wait is how long "
            "the model waited for frames.",
            ("stage",),
        )
        self._video_s = Counter(VIDEO_SECONDS, "Seconds of video that were tracked.")

    def add(self, counts: Mapping[str, float]) -> None:
        """Count what was done.

        Args:
            counts: Frames by `FRAME_STAGES`, seconds by `TIME_STAGES`, and seconds of video as
                "video". What did not grow is left out.
        """
        for stage in FRAME_STAGES:
            if counts[stage] > 0:
                self._frames.inc(counts[stage], {"stage": stage})
        for stage in TIME_STAGES:
            if counts[stage] > 0:
                self._seconds.inc(counts[stage], {"stage": stage})
        if counts["video"] > 0:
            self._video_s.inc(counts["video"])


class DriverMetrics:
    """What the driver counts."""

    def __init__(self) -> None:
        """Declare the metrics; Ray has to be connected."""
        self._videos = Counter(VIDEOS, "Videos with a result, by outcome.", ("outcome",))
        self._open = Gauge(
            VIDEOS_OPEN, "Videos handed to the workers that have no result: under way or waiting."
        )

    def finished(self, outcome: str) -> None:
        """Count a video with an outcome of `OUTCOMES`."""
        self._videos.inc(1, {"outcome": outcome})

    def open(self, videos: int) -> None:
        """Set the number of videos without a result."""
        self._open.set(videos)
