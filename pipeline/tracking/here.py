"""Run segments in this process, without Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from pipeline.runtime.progress import FrameCounter, RunDisplay
from pipeline.runtime.stop import StopRequest, guarding_main
from pipeline.tracking.plan import Segment
from pipeline.tracking.track_video import TrackSettings
from pipeline.tracking.worker import SegmentResult, VideoTracker


def run_in_process(
    segments: Sequence[Segment],
    settings: TrackSettings,
    display: RunDisplay,
    stop: StopRequest,
    watchdog_s: float,
    give_up: Callable[[str], None],
) -> Iterator[SegmentResult]:
    """Track in this process, one video after the other; yields each result.

    Args:
        segments: Segments in this order.
        settings: Settings of the worker; the device is chosen here.
        display: Gets the number of frames after each window.
        stop: Checked after each window.
        watchdog_s: Seconds without a new frame or video after which `give_up` is called.
        give_up: Called with the message; has to end the process.

    Raises:
        Stopped: A signal asked for the end.
    """
    counter = FrameCounter()
    current = "the weights"
    finished = 0

    def report(video_id: str, frames: int) -> None:
        counter.report(video_id, frames)
        display.frames_at(counter.total())
        stop.check()

    device = "cuda" if torch.cuda.is_available() else "cpu"

    def moved() -> tuple[int, int]:
        return finished, counter.total()

    with guarding_main(moved, watchdog_s, lambda: current, give_up):
        worker = VideoTracker(replace(settings, device=device, in_process=True), report)
        for segment in segments:
            stop.check()
            current = segment.info.relative_path
            yield worker.track(segment.info)
            finished += 1
