"""Run segments in this process, without Ray."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import islice

from pipeline.archive.plan import Segment
from pipeline.inference.stream_plan import StreamPlan
from pipeline.runtime.frame_counter import FrameCounter
from pipeline.runtime.progress import RunDisplay
from pipeline.runtime.reports import Place, WorkerReports
from pipeline.runtime.stop import Stopped, StopRequest, guarding_main
from pipeline.tracking.track_video import TrackSettings
from pipeline.tracking.worker import SegmentResult, VideoTracker


def run_in_process(
    segments: Iterable[Segment],
    settings: TrackSettings,
    plan: StreamPlan,
    display: RunDisplay,
    stop: StopRequest,
    watchdog_s: float,
    give_up: Callable[[str], None],
) -> Iterator[SegmentResult]:
    """Track in this process, as many videos at once as the plan says; yields each result.

    Args:
        segments: Segments in this order, taken as they are needed.
        settings: Settings of the worker.
        plan: How videos share the student.
        display: Gets the number of frames after each window, and whom to ask for news.
        stop: Checked after each window.
        watchdog_s: Seconds without a new frame or video after which `give_up` is called.
        give_up: Called with the message; has to end the process.

    Raises:
        Stopped: A signal asked for the end.
    """
    counter, one_at_a_time = FrameCounter(), threading.Lock()
    reports = WorkerReports(counter.report)
    display.ask = counter.news
    current = ["the weights"]
    finished = 0
    leaving = threading.Event()

    def report(name: str, place: Place) -> None:
        reports(name, place)
        with one_at_a_time:
            display.frames_at(counter.total())
        stop.check()
        if leaving.is_set():
            raise Stopped("the results of other videos are not wanted any more")

    def moved() -> tuple[int, int]:
        return finished, counter.total()

    with guarding_main(moved, watchdog_s, lambda: ", ".join(current), give_up):
        worker = VideoTracker(replace(settings, in_process=True), report, display.say, plan)
        current.clear()

        def track(segment: Segment) -> SegmentResult:
            stop.check()
            current.append(segment.info.relative_path)
            try:
                return worker.track(segment)
            finally:
                current.remove(segment.info.relative_path)

        for result in _in_threads(track, segments, plan.streams, leaving):
            yield result
            counter.forget(result.name)
            finished += 1


def _in_threads(
    track: Callable[[Segment], SegmentResult],
    segments: Iterable[Segment],
    threads: int,
    leaving: threading.Event,
) -> Iterator[SegmentResult]:
    """Results in the order in which they come.

    Args:
        track: Called for each segment.
        segments: In this order.
        threads: Calls at the same time; one is made in this thread.
        leaving: Set when nobody takes further results.
    """
    if threads == 1:
        yield from map(track, segments)
        return
    with ThreadPoolExecutor(threads, "video") as pool:
        remaining = iter(segments)
        open_calls: set[Future[SegmentResult]] = set()
        try:
            while True:
                more = islice(remaining, threads - len(open_calls))
                open_calls |= {pool.submit(track, segment) for segment in more}
                if not open_calls:
                    return
                done, open_calls = wait(open_calls, return_when=FIRST_COMPLETED)
                for call in done:
                    yield call.result()
        finally:
            leaving.set()
            pool.shutdown(wait=False, cancel_futures=True)
