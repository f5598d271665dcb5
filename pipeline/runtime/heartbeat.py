"""The heartbeat of a run: a small file in the output that says how far the run is.

The driver rewrites ``progress/<run>.json`` every few seconds, so `vsdmot status` can tell from the
storage alone what is under way. Workers write nothing: they tell the driver. A good end removes the
file; another end leaves it with the reason. No result depends on it.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self, TypeVar

from pipeline.runtime.frame_counter import WorkerNews, video_of
from pipeline.runtime.stop import Stopped
from pipeline.storage import files as storage
from pipeline.storage.compacted import is_missing
from pipeline.storage.errors import StorageError
from pipeline.storage.schema import storable

FIRST_S, EVERY_S = 2.0, 10.0
"""Seconds before the first heartbeat, so that a short run writes none, and between two."""

_FORMAT = 1
_KEPT_S = 300.0  # of the samples from which the rate is computed
_FORGOTTEN_S = 3600.0  # after which a run that says nothing counts as gone, for its removal
_LEAVE_S = 5.0  # how long the end of a run waits for its last heartbeat

T = TypeVar("T")

State = Literal["running", "stopped", "failed", "ended"]


@dataclass(frozen=True, slots=True)
class OpenVideo:
    """A video that was handed to the workers and has no result.

    Attributes:
        path: Path in the archive.
        frames: Frames by its header; None if it does not tell.
        mode: How it is tracked, as of `Segment`.
    """

    path: str
    frames: int | None
    mode: str


@dataclass(frozen=True, slots=True)
class Totals:
    """What the driver has counted.

    Attributes:
        found, whole: Files found so far, and whether these are all.
        skipped, dead_before: Files with a result of an earlier run, and the dead letters of them.
        dead, unread: Dead letters of this run, and files on which storage failed.
        planned, finished: Videos handed to the workers so far, and those with a result.
        unplanned: Videos found that were not handed to the workers yet.
        frames, frames_expected: Frames tracked of these videos, and those they have by their
            headers.
    """

    found: int = 0
    whole: bool = False
    skipped: int = 0
    dead_before: int = 0
    dead: int = 0
    unread: int = 0
    planned: int = 0
    finished: int = 0
    unplanned: int = 0
    frames: int = 0
    frames_expected: int = 0


@dataclass(frozen=True, slots=True)
class VideoPlace:
    """Where a worker is in a video.

    Attributes:
        video_id, path, mode: As of the video.
        window: Name of the window, such as "w3of8"; "" for a whole video.
        worker: Host and process.
        frame, frames: Frames tracked, and those of the video by its header, None if unknown.
        second: Seconds of video of the last one.
        silent_s: Seconds since the worker last told of it.
    """

    video_id: str
    path: str
    mode: str
    window: str
    worker: str
    frame: int
    frames: int | None
    second: float
    silent_s: float


@dataclass(frozen=True, slots=True)
class Beat:
    """One heartbeat.

    Attributes:
        run, host, pid: Which run it is, and where its driver is.
        started, heard: Times of the driver's clock, ISO 8601 in UTC.
        every_s: Seconds between two heartbeats.
        state, message: Whether the run goes on, and the reason if it does not.
        totals: What is counted.
        samples: (seconds since the start, frames, seconds of video) tracked by this run, of the
            last minutes, oldest first.
        under_way: Where the workers are.
    """

    run: str
    host: str
    pid: int
    started: str
    heard: str
    every_s: float
    state: State
    message: str
    totals: Totals
    samples: list[tuple[float, int, float]]
    under_way: list[VideoPlace]

    def encode(self) -> bytes:
        """The content of its file."""
        return json.dumps({"format": _FORMAT, **asdict(self)}).encode()

    @property
    def age_s(self) -> float:
        """Seconds since it was written, by the clocks of two machines; never below 0."""
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(self.heard)).total_seconds())


def read_beats(output: str) -> list[Beat]:
    """The last heartbeats of the runs of an output, the latest last.

    Raises:
        StorageError: The output cannot be reached.
    """
    beats = []
    for run in storage.list_stems(f"{output.rstrip('/')}/progress", ".json"):
        try:
            beats.append(_decoded(storage.read_bytes(_uri(output, run))))
        except StorageError as error:
            if not is_missing(error):  # otherwise its run has just ended
                raise
        except (ValueError, KeyError, TypeError):
            continue  # of another version of this project
    return sorted(beats, key=lambda beat: beat.heard)


class Heartbeat:
    """Writes the heartbeats of a run from a thread, while the body runs.

    Nothing that goes wrong here reaches the run: it is told once.

    Args:
        output: The output folder.
        run: Name of the run.
        totals: Gives what is counted so far.
        news: Gives the news of the workers.
        videos: Gives the videos without a result, by id.
        warn: Called with the first failure.
    """

    def __init__(
        self,
        output: str,
        run: str,
        totals: Callable[[], Totals],
        news: Callable[[], WorkerNews],
        videos: Callable[[], Mapping[str, OpenVideo]],
        warn: Callable[[str], None],
    ) -> None:
        """Nothing is written before the body."""
        self._output, self._run_name = output, run
        self._totals, self._news, self._videos, self._warn = totals, news, videos, warn
        self._state: State = "running"
        self._message = ""
        self._warned = False
        self._samples: deque[tuple[float, int, float]] = deque()
        self._before = self._last = (0, 0.0)  # counters that are over, and the present one
        self._started, self._clock = _now(), time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: Any
    ) -> None:
        if error is not None and self._state == "running":
            state: State = "stopped" if isinstance(error, Stopped) else "failed"
            self.left(state, str(error) or type(error).__name__)
        self._end.set()
        self._thread.join(_LEAVE_S)  # a store that hangs does not keep the run from ending

    def left(self, state: State, message: str = "") -> None:
        """Say how the run ends, so that its last heartbeat stays and tells it."""
        self._state, self._message = state, message

    def _run(self) -> None:
        begun = False
        wait_s = FIRST_S
        while not self._end.wait(wait_s):
            if not begun:
                self._carefully(self._remove_others)
            self._carefully(self._write)
            begun, wait_s = True, EVERY_S
        if begun:
            self._carefully(self._write if self._state != "running" else self._remove)

    def _carefully(self, act: Callable[[], T]) -> T | None:
        """What a call returns; None if it fails, which is told once."""
        try:
            return act()
        except Exception as error:  # of a store, of Ray: nothing of it may end the run
            if not self._warned:
                self._warned = True
                self._warn(f"vsdmot status may be behind: {error}")
            return None

    def _write(self) -> None:
        news = self._carefully(self._news) if self._state == "running" else None
        if news is not None:
            self._sample(news)
        places = []
        videos = self._videos()
        for each in news.under_way if news is not None else ():
            if (video := videos.get(video_of(each.name))) is not None:
                place = VideoPlace(
                    video_of(each.name), storable(video.path), video.mode,
                    each.name.partition(" ")[2], each.worker, each.frames, video.frames,
                    each.second, each.silent_s,
                )  # fmt: skip
                places.append(place)
        beat = Beat(
            self._run_name, socket.gethostname(), os.getpid(), self._started, _now(), EVERY_S,
            self._state, storable(self._message), self._totals(), list(self._samples), places,
        )  # fmt: skip
        storage.write_atomic(_uri(self._output, self._run_name), beat.encode())

    def _sample(self, news: WorkerNews) -> None:
        """Take what was tracked so far. A counter that begins anew is added to those before it."""
        if news.frames < self._last[0]:
            self._before = self._before[0] + self._last[0], self._before[1] + self._last[1]
        self._last = news.frames, news.video_s
        now = time.monotonic() - self._clock
        self._samples.append((now, self._before[0] + news.frames, self._before[1] + news.video_s))
        while self._samples[0][0] < now - _KEPT_S:
            self._samples.popleft()

    def _remove(self) -> None:
        storage.remove(_uri(self._output, self._run_name))

    def _remove_others(self) -> None:
        """Remove the last words of runs that are over."""
        for beat in read_beats(self._output):
            if beat.state != "running" or beat.age_s > _FORGOTTEN_S:
                with suppress(StorageError):
                    storage.remove(_uri(self._output, beat.run))


def _uri(output: str, run: str) -> str:
    return f"{output.rstrip('/')}/progress/{run}.json"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _decoded(data: bytes) -> Beat:
    record = json.loads(data)
    if record.pop("format") != _FORMAT:
        raise ValueError("another format")
    record["totals"] = Totals(**record["totals"])
    record["samples"] = [tuple(sample) for sample in record["samples"]]
    record["under_way"] = [VideoPlace(**place) for place in record["under_way"]]
    return Beat(**record)
