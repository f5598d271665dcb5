"""Progress of a run as its user sees it: one bar for videos and frames, or lines in a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import TracebackType
from typing import Self

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

from pipeline.runtime.frame_counter import WorkerNews

_NEWS_EVERY_S = 10.0


class RunDisplay:
    """Shows videos and frames done, rate and time left.

    In a terminal, and in a notebook that has ipywidgets, it is a bar, else lines.

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
        self._reported = 0
        self._started = self._last_news = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self.ask: Callable[[], WorkerNews] = WorkerNews
        """Gives the news of the workers; set by what runs them. It may fail as they may."""

    def __enter__(self) -> Self:
        """Show the bar, if the console can."""
        if _can_redraw(self._console):
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
            self._bar.refresh()  # in a notebook `stop` does not draw
            self._bar.stop()

    @property
    def frames_done(self) -> int:
        """Frames tracked, by the last report."""
        return self._frames_done

    @property
    def frames_reported(self) -> int:
        """The last report. It changes while any worker tracks; `frames_done` may stand still.

        Last frames of short videos are in no report, so reports may lie below `finished_frames`.
        """
        return self._reported

    @property
    def rate(self) -> float:
        """Frames a second since the start."""
        return self._frames_done / max(time.monotonic() - self._started, 1e-9)

    @property
    def frames_expected(self) -> int:
        """Frames of all videos that are to be tracked: by the headers until they are tracked."""
        return self._frames

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
        self._reported = total
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


def _can_redraw(console: Console) -> bool:
    """Whether what is shown can be drawn again: a terminal, or a notebook with its widgets."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


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
            if not _can_redraw(console) and time.monotonic() - last[0] > _NEWS_EVERY_S:
                last[0] = time.monotonic()
                console.print(text)

        yield update
