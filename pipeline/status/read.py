"""How far a run is: its heartbeat, and what its output holds."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import chain
from typing import Literal

from pipeline.archive.id_set import IdSet
from pipeline.report.run_figures import what_to_do
from pipeline.report.run_tables import listed_files, read_record, read_rows
from pipeline.runtime.heartbeat import EVERY_S, Beat, VideoPlace, read_beats
from pipeline.status.estimate import Rate, TimeLeft, rate_of, time_left
from pipeline.storage.compacted import compacted_ids
from pipeline.storage.files import iter_stems, list_stems
from pipeline.storage.schema import DEAD_LETTERS, table_uri

SILENT_S = 60.0
"""Seconds after which a worker or a driver that said nothing is worth a remark."""
LISTEN_S = EVERY_S + 5.0
"""Seconds in which a driver that lives is heard of, also from a slow store."""
_DOUBTED_S = 3600.0  # age up to which a driver may be one whose clock is behind

State = Literal["listing", "running", "silent", "stopped", "failed", "incomplete", "finished"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A file that could not be tracked: its path, the kind and the reason, and what to do."""

    path: str
    kind: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class VideoUnderWay:
    """A video that is being tracked.

    Attributes:
        path: Path in the archive.
        worker: Host and process.
        part: Which part of a long video it is, in words; "" for a short one.
        frame, frames: Frame that is reached, and how many the header tells; None if it does not.
            Of a window they are counted from its start.
        second: Seconds of video that are reached.
        silent_s: Seconds since the worker last told of it.
    """

    path: str
    worker: str
    part: str
    frame: int
    frames: int | None
    second: float
    silent_s: float


@dataclass(frozen=True, slots=True)
class Driver:
    """The process that leads a run.

    Attributes:
        run, host, pid: Which it is, and where.
        started: Time of its clock.
        heard_s: Seconds since it was last heard of.
        behind_s: Seconds that its clock is behind that of this machine; 0 where that was not
            looked at, because it was heard of lately by both clocks.
    """

    run: str
    host: str
    pid: int
    started: str
    heard_s: float
    behind_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RunStatus:
    """How far a run is.

    Attributes:
        output: Its folder or URL.
        state: "listing": files are being found, nothing is tracked yet. "running". "silent": the
            driver was not heard of for a while. "stopped": by a signal. "failed": by an error.
            "incomplete": no run is under way, and files are left. "finished": nothing is left.
        message: Why it stopped or failed.
        files: Files found so far; None if nobody has counted them.
        whole: Whether these are all.
        done, dead: Files that are tracked, and those that cannot be.
        unread: Files on which storage failed; the next run tries them again.
        waiting: Files that are neither; None if it is not known.
        rate: How fast it was in the last minutes; None if it is not known.
        left: How long it will take.
        driver: Who leads it; None if no run is under way or has left a word.
        other_drivers: Drivers beside it, which work on the same output.
        under_way: What is being tracked, the worker that is silent the longest first.
        letters: The first dead letters by path.
    """

    output: str
    state: State
    message: str
    files: int | None
    whole: bool
    done: int
    dead: int
    unread: int
    waiting: int | None
    rate: Rate | None
    left: TimeLeft | None
    driver: Driver | None
    other_drivers: int = 0
    under_way: list[VideoUnderWay] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state not in ("listing", "running")


def read_status(output: str, letters: int = 10, listen_s: float = 0.0) -> RunStatus:
    """Read how far a run is, by listing its output.

    Read are some dead letters, and the ids of merged tables. In RAM are 16 bytes for each finished
    video.

    Args:
        output: The output of `vsdmot track`, compacted or not.
        letters: Greatest number of dead letters that are read.
        listen_s: Seconds to wait for another heartbeat where the clocks say that the driver is
            silent; 0 believes them.

    Raises:
        NoRunError: The folder has no record of a tracking run, or one of another version.
        StorageError: The output cannot be reached.
    """
    output = output.rstrip("/")
    record = read_record(output)
    beats = read_beats(output)
    behind: dict[str, float] = {}
    if listen_s and not _alive(beats):
        beats, behind = _listened(output, beats, listen_s)
    alive = _alive(beats)
    beat = alive[-1] if alive else beats[-1] if beats else None
    done, dead = _results(output)
    running = beat is not None and beat.state == "running"
    files: int | None
    if beat is not None and running:
        files, whole = beat.totals.found, beat.totals.whole
    else:
        files = listed_files(output)
        whole = files is not None
    places = beat.under_way if beat is not None and running else []
    unread = beat.totals.unread if beat is not None else 0
    videos = len({place.video_id for place in places})
    left = None if files is None else max(0, files - done - len(dead))
    now = _state(beat, left if whole else None)
    seconds = float(record.get("config", {}).get("split", {}).get("seconds", 0.0))
    age_s = beat.age_s if beat is not None else 0.0
    return RunStatus(
        output=output,
        state=now,
        message=beat.message if beat is not None and now in ("stopped", "failed") else "",
        files=files,
        whole=whole,
        done=done,
        dead=len(dead),
        unread=unread,
        waiting=None if left is None else max(0, left - videos - unread),
        rate=rate_of(beat.samples) if beat is not None and now == "running" else None,
        left=time_left(beat) if beat is not None and now == "running" else None,
        driver=None
        if beat is None
        else Driver(
            beat.run, beat.host, beat.pid, beat.started, round(age_s, 1), behind.get(beat.run, 0.0)
        ),
        other_drivers=max(0, len(alive) - 1),
        under_way=sorted(
            (_under_way(place, seconds, age_s) for place in places),
            key=lambda video: -video.silent_s,
        ),
        letters=_letters(output, dead[:letters]),
    )


def _alive(beats: list[Beat]) -> list[Beat]:
    return [beat for beat in beats if beat.state == "running" and beat.age_s <= SILENT_S]


def _listened(
    output: str, beats: list[Beat], seconds: float
) -> tuple[list[Beat], dict[str, float]]:
    """The heartbeats some seconds later, and how far the clocks of drivers are behind, by run.

    A heartbeat that has changed meanwhile is of a driver that lives, whatever the clocks say. It
    gets the time of this machine's clock.
    """
    doubted = {
        beat.run: beat.heard
        for beat in beats
        if beat.state == "running" and beat.age_s <= _DOUBTED_S
    }
    if not doubted:
        return beats, {}
    time.sleep(seconds)
    behind: dict[str, float] = {}
    later = []
    for beat in read_beats(output):
        if beat.state == "running" and beat.heard != doubted.get(beat.run, beat.heard):
            behind[beat.run] = round(beat.age_s, 1)
            beat = replace(beat, heard=datetime.now(UTC).isoformat(timespec="milliseconds"))
        later.append(beat)
    return sorted(later, key=lambda beat: beat.heard), behind


def _state(beat: Beat | None, left: int | None) -> State:
    """The state of a run with so many files left; None if their number is not known."""
    running = beat is not None and beat.state == "running"
    if beat is not None and running and beat.age_s <= SILENT_S:
        return "running" if beat.totals.planned or beat.totals.whole else "listing"
    if left == 0:
        return "finished"
    if running:
        return "silent"
    if beat is not None and beat.state in ("stopped", "failed"):
        return "stopped" if beat.state == "stopped" else "failed"
    return "incomplete"


def _results(output: str) -> tuple[int, list[str]]:
    """Number of finished videos, and ids of the dead letters of others, sorted."""
    # The order counts: a video that is compacted meanwhile is in the commit, which is read last.
    dead = sorted(list_stems(f"{output}/dead_letters"))
    done = IdSet(chain(iter_stems(f"{output}/videos"), compacted_ids(output)))
    finished = done.has(dead).tolist()
    return len(done), [name for name, over in zip(dead, finished, strict=True) if not over]


def _under_way(place: VideoPlace, split_seconds: float, age_s: float) -> VideoUnderWay:
    part = ""
    if place.window:
        number, _, count = place.window.removeprefix("w").partition("of")
        part = f"window {int(number) + 1} of {count}"
    elif place.mode == "resume" and split_seconds:
        part = f"part {int(place.second // split_seconds) + 1}"
    return VideoUnderWay(
        path=place.path,
        worker=place.worker,
        part=part,
        frame=place.frame,
        frames=None if place.window else place.frames,
        second=round(place.second, 2),
        silent_s=round(place.silent_s + age_s, 1),
    )


def _letters(output: str, ids: list[str]) -> list[DeadLetter]:
    rows = read_rows([table_uri(output, "dead_letters", name) for name in ids], DEAD_LETTERS)
    return [
        DeadLetter(row["relative_path"], row["kind"], row["message"], what_to_do(row))
        for row in rows.sort_by("relative_path").to_pylist()
    ]
