"""Progress of a run: workers report frames, the driver shows one bar for videos and frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_REPORT_EVERY_S = 0.5
_NEWS_EVERY_S = 10.0


class FrameCounter:
    """Counts the frames tracked by all workers. On a cluster it is an actor."""

    def __init__(self) -> None:
        """Start at 0 frames."""
        self._by_video: dict[str, int] = {}
        self._total = 0
        self._notices: list[str] = []

    def report(self, video_id: str, frames: int) -> None:
        """Set a video's count. It may fall, because a video is tracked again if its worker died."""
        self._total += frames - self._by_video.pop(video_id, 0)
        self._by_video[video_id] = frames

    def total(self) -> int:
        """Frames of all videos together."""
        return self._total

    def notice(self, text: str) -> None:
        """Take what the user should know; the same text of several workers counts once."""
        if text not in self._notices:
            self._notices.append(text)

    def notices(self, start: int) -> list[str]:
        """All notices but the first `start`."""
        return self._notices[start:]

    def forget(self, video_id: str) -> None:
        """Forget which frames are those of a finished video; they stay counted."""
        for name in [name for name in self._by_video if video_of(name) == video_id]:
            del self._by_video[name]

    def latest(self, count: int) -> dict[str, int]:
        """The videos that reported last, the latest at the end, and their frames so far."""
        names = list(self._by_video)[-count:]
        return {name: self._by_video[name] for name in names}


def video_of(name: str) -> str:
    """Id of the video that a count is for; the name of a window follows after a space."""
    return name.partition(" ")[0]


class RemoteReport:
    """Sends a worker's counts to a `FrameCounter` actor, at most twice a second, without wait."""

    def __init__(self, counter: Any) -> None:
        """Take the actor handle of a `FrameCounter`."""
        self._counter = counter
        self._last = 0.0

    def __call__(self, video_id: str, frames: int) -> None:
        """Report a video's frames, unless the last report is less than half a second old."""
        now = time.monotonic()
        if now - self._last >= _REPORT_EVERY_S:
            self._last = now
            self._counter.report.remote(video_id, frames)

    def notice(self, text: str) -> None:
        """Tell the user something."""
        self._counter.notice.remote(text)


class RunDisplay:
    """Shows videos and frames done, rate and time left: a bar on a terminal, else lines.

    Args:
        console: Console to print to.
        tick: Called about every ten seconds while the counts change.
    """

    def __init__(self, console: Console, tick: Callable[[RunDisplay], None]) -> None:
        """Start at 0 videos and frames."""
        self._console, self._tick = console, tick
        self._videos = self._frames = 0
        self._more = ""
        self._videos_done = self._finished_frames = self._frames_done = 0
        self._started = self._last_news = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        """Show the bar if the console is a terminal."""
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("frames · {task.fields[rate]:.0f}/s ·"),
                TimeElapsedColumn(),
                TextColumn("· left"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._title(), total=self._frames, rate=0.0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the bar; it stays visible."""
        self._draw(last=True)
        if self._bar is not None:
            self._bar.stop()

    @property
    def frames_done(self) -> int:
        """Frames tracked, by the last report."""
        return self._frames_done

    @property
    def rate(self) -> float:
        """Frames a second since the start."""
        return self._frames_done / max(time.monotonic() - self._started, 1e-9)

    @property
    def finished_frames(self) -> int:
        """Frames of the finished videos."""
        return self._finished_frames

    def expect(self, videos: int, frames: int, more: bool = False) -> None:
        """Add videos that are to be tracked.

        Args:
            videos: Their number.
            frames: Number of their frames by the headers.
            more: Whether others will follow.
        """
        self._videos += videos
        self._frames += frames
        self._more = " so far" if more else ""

    def frames_at(self, total: int) -> None:
        """Set the number of frames tracked by all workers."""
        self._frames_done = max(total, self._finished_frames)
        self._draw()

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)

    def video_finished(self, frames_expected: int | None, frames: int) -> None:
        """Count a finished video; its true length replaces that of its header."""
        self._videos_done += 1
        self._finished_frames += frames
        self._frames += frames - (frames_expected or 0)
        self._frames_done = max(self._frames_done, self._finished_frames)
        self._draw()

    def _title(self) -> str:
        return f"{self._videos_done}/{self._videos} videos{self._more}"

    def _draw(self, last: bool = False) -> None:
        total = max(self._frames, self._frames_done)
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                description=self._title(),
                completed=self._frames_done,
                total=total,
                rate=self.rate,
            )
        now = time.monotonic()
        if not last and now - self._last_news < _NEWS_EVERY_S:
            return
        self._last_news = now
        self._tick(self)
        if self._bar is None:
            left = (total - self._frames_done) / self.rate if self._frames_done else None
            self._console.print(
                f"{self._title()}, {self._frames_done}/{total} frames, {self.rate:.1f} frames/s, "
                + (f"about {left:.0f} s left" if left is not None else "time left unknown"),
                soft_wrap=True,
                highlight=False,
            )


@contextmanager
def waiting_line(console: Console, files: Callable[[], int]) -> Iterator[Callable[[], None]]:
    """Show how many files were gone through; yields a function to call several times a second.

    Args:
        console: Console to print to.
        files: Gives their number.
    """
    last = [time.monotonic()]
    with console.status("going through the archive") as status:

        def update() -> None:
            text = f"going through the archive: {files()} files so far"
            status.update(text)
            if not console.is_terminal and time.monotonic() - last[0] > _NEWS_EVERY_S:
                last[0] = time.monotonic()
                console.print(text)

        yield update
