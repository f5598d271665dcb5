"""What a worker tells the driver while it tracks: how far each of its videos is."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.runtime.frame_counter import Reached

if TYPE_CHECKING:
    from pipeline.runtime.stage_metrics import WorkerMetrics


class Spent(Protocol):
    """Seconds that tracking a video has taken so far, by stage."""

    decode_wait_s: float
    decode_busy_s: float
    encode_s: float
    step_s: float
    write_s: float


class Place(Protocol):
    """Where a worker is in a video or a window of one.

    Attributes:
        frames: Frames before this place, since the start of the video or window.
        last_s: Seconds of video of the last of them; -inf before the first.
        tracked, encoded: Frames that this attempt has tracked, and those of them it has encoded.
        video_s: Seconds of video that this attempt has tracked.
    """

    frames: int
    last_s: float
    tracked: int
    encoded: int
    video_s: float

    @property
    def spent(self) -> Spent:
        """Seconds of all attempts."""


Report = Callable[[str, Place], None]
"""Called with the name of a video or window and its place, before the first frames and after each
window of frames."""

_EVERY_S = 0.5


class WorkerReports:
    """Collects the reports of the threads of a worker, and sends them at most twice a second.

    Args:
        send: Called as `FrameCounter.report`.
    """

    def __init__(self, send: Callable[[str, Mapping[str, Reached], int, float], object]) -> None:
        """Nothing is sent yet."""
        self._send = send
        self._lock = threading.Lock()
        self._worker = f"{socket.gethostname()}:{os.getpid()}"
        # Name, frames and seconds of the last report, by thread, which has one video.
        self._before: dict[int, tuple[str, int, float]] = {}
        self._news: dict[str, Reached] = {}
        self._frames, self._video_s = 0, 0.0
        self._sent = 0.0

    def __call__(self, name: str, place: Place) -> None:
        """Take the place of a video or window."""
        thread = threading.get_ident()
        with self._lock:
            before, frames, video_s = self._before.get(thread, ("", 0, 0.0))
            self._before[thread] = name, place.frames, place.video_s
            self._news[name] = Reached(place.frames, max(0.0, place.last_s))
            # Frames before the first report are those of an earlier attempt, from which it goes on.
            if before == name and place.frames > frames:
                self._frames += place.frames - frames
                self._video_s += max(0.0, place.video_s - video_s)
            now = time.monotonic()
            if now - self._sent < _EVERY_S:
                return
            self._sent = now
            self._send(self._worker, self._news, self._frames, self._video_s)
            self._news, self._frames, self._video_s = {}, 0, 0.0


class RemoteReport(WorkerReports):
    """The reports of a worker on Ray: to a `FrameCounter` actor, without wait, and as metrics.

    Args:
        counter: The handle of the actor.
    """

    def __init__(self, counter: Any) -> None:
        """Made in the driver; each worker gets its own by pickling."""
        super().__init__(counter.report.remote)
        self._counter = counter
        self._counted: dict[int, tuple[str, dict[str, float]]] = {}  # by thread

    def __reduce__(self) -> tuple[type[RemoteReport], tuple[Any]]:
        return RemoteReport, (self._counter,)

    def __call__(self, name: str, place: Place) -> None:
        """Take the place of a video or window."""
        super().__call__(name, place)
        thread, now = threading.get_ident(), _counts(place)
        earlier, before = self._counted.get(thread, ("", now))
        self._counted[thread] = name, now
        if earlier == name:
            self._metrics.add({key: now[key] - before[key] for key in now})

    @cached_property
    def _metrics(self) -> WorkerMetrics:
        # Imported here, because without Ray nobody needs it.
        from pipeline.runtime.stage_metrics import WorkerMetrics

        return WorkerMetrics()

    def notice(self, text: str) -> None:
        """Tell the user something."""
        self._counter.notice.remote(text)


def _counts(place: Place) -> dict[str, float]:
    """What `WorkerMetrics` counts of a place, as sums up to it."""
    spent = place.spent
    return {
        "decoded": place.frames,
        "encoded": place.encoded,
        "tracked": place.tracked,
        "decode": spent.decode_busy_s,
        "decode_wait": spent.decode_wait_s,
        "encode": spent.encode_s,
        "step": spent.step_s,
        "write": spent.write_s,
        "video": place.video_s,
    }
