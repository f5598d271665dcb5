"""Where the videos under way are: workers report, and one counter of the run keeps it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

_REMEMBERED = 1024  # finished videos and windows of which late reports are left out


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a worker has come with a video or a window of one.

    Attributes:
        frames: Frames that are tracked, since the start of the video or window.
        second: Seconds of video of the last one.
    """

    frames: int
    second: float


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A video, or a window of one, that a worker tracks.

    Attributes:
        name: Id of the video; for a window its name follows after a space.
        worker: Host and process of the worker.
        frames, second: As of `Reached`.
        silent_s: Seconds since the worker last told of it.
    """

    name: str
    worker: str
    frames: int
    second: float
    silent_s: float


@dataclass(frozen=True, slots=True)
class WorkerNews:
    """What all workers of a run have told.

    Attributes:
        frames, video_s: Frames and seconds of video that they have tracked since the counter
            began, without those that were taken over from an earlier run.
        under_way: What they are tracking now.
    """

    frames: int = 0
    video_s: float = 0.0
    under_way: list[UnderWay] = field(default_factory=list)


class FrameCounter:
    """Counts the frames tracked by all workers. On a cluster it is an actor.

    Any thread may call it.
    """

    def __init__(self) -> None:
        """Start at 0 frames."""
        self._lock = threading.Lock()
        self._at: dict[str, tuple[Reached, str, float]] = {}
        self._finished: OrderedDict[str, int] = OrderedDict()  # frames of each by its last report
        self._total = 0
        self._frames, self._video_s = 0, 0.0
        self._notices: list[str] = []

    def report(
        self, worker: str, reached: Mapping[str, Reached], frames: int, video_s: float
    ) -> None:
        """Take the news of a worker.

        Args:
            worker: Its name.
            reached: How far it is with videos and windows, by name. A count may fall, because a
                video is tracked again if its worker died.
            frames, video_s: Frames and seconds of video that it has tracked since its last news.
        """
        now = time.monotonic()
        with self._lock:
            for name, place in reached.items():
                if self._is_late(name, place):
                    continue
                earlier = self._at.pop(name, None)
                before = earlier[0].frames if earlier else self._finished.pop(name, 0)
                self._total += place.frames - before
                self._at[name] = place, worker, now
            self._frames += frames
            self._video_s += video_s

    def _is_late(self, name: str, place: Reached) -> bool:
        """Whether a report was sent before its video or window was finished.

        A window whose part is lost is tracked again, so its count begins anew.
        """
        if video_of(name) in self._finished:
            return True
        return name in self._finished and place.frames >= self._finished[name]

    def total(self) -> int:
        """Frames of all videos together."""
        return self._total

    def news(self) -> WorkerNews:
        """What is under way, and what was tracked so far."""
        now = time.monotonic()
        with self._lock:
            under_way = [
                UnderWay(name, worker, place.frames, place.second, now - heard)
                for name, (place, worker, heard) in self._at.items()
            ]
            return WorkerNews(self._frames, self._video_s, under_way)

    def notice(self, text: str) -> None:
        """Take what the user should know; the same text of several workers counts once."""
        if text not in self._notices:
            self._notices.append(text)

    def notices(self, start: int) -> list[str]:
        """All notices but the first `start`."""
        return self._notices[start:]

    def forget(self, finished: str) -> None:
        """Forget which frames are those of a finished video or window; they stay counted."""
        with self._lock:
            frames = 0
            for name in [name for name in self._at if finished in (name, video_of(name))]:
                frames += self._at.pop(name)[0].frames
            self._finished[finished] = frames
            if len(self._finished) > _REMEMBERED:
                self._finished.popitem(last=False)

    def latest(self, count: int) -> dict[str, int]:
        """The videos that reported last, the latest at the end, and their frames so far."""
        with self._lock:
            names = list(self._at)[-count:]
            return {name: self._at[name][0].frames for name in names}


def video_of(name: str) -> str:
    """Id of the video that a count is for; the name of a window follows after a space."""
    return name.partition(" ")[0]
