"""A status in words, for a terminal or a file."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.status.estimate import Rate, TimeLeft
from pipeline.status.read import SILENT_S, RunStatus, VideoUnderWay

_SHOWN = 40  # videos under way that are named
_REASON = 160  # characters of a reason
_AGAIN = "run the same command again to go on"


def status_lines(status: RunStatus) -> Iterator[str]:
    """The lines of a status."""
    yield f"{status.output}: {_state(status)}"
    if status.driver is not None and not status.over:
        driver = status.driver
        yield (
            f"  driver     {driver.host}:{driver.pid}, started {driver.started[:19]} UTC, heard of "
            f"{duration(driver.heard_s)} ago"
        )
        if driver.behind_s:
            yield f"  its clock  is {duration(driver.behind_s)} behind that of this machine"
    if status.other_drivers:
        yield f"  beside it  {status.other_drivers} more on the same output, with the same videos"
    files = "not counted yet" if status.files is None else f"{status.files:,}"
    yield f"  files      {files}{'' if status.whole or status.files is None else ' so far'}"
    share = f" ({status.done / status.files:.1%})" if status.files and status.whole else ""
    yield f"  done       {status.done:,}{share}"
    yield f"  dead       {status.dead:,}"
    if status.unread:
        yield f"  not read   {status.unread:,}, because storage failed; the next run tries again"
    if not status.over:
        yield f"  under way  {len(status.under_way):,}"
    if status.waiting is not None:
        yield f"  waiting    {status.waiting:,}{'' if status.whole else ' of those found so far'}"
    if status.state == "running":
        yield f"  rate       {_rate(status.rate)}"
        yield f"  time left  {_left(status.left)}"
    if status.under_way:
        yield "under way" if not status.over else "under way when it was last heard of"
        yield from (f"  {_place(video)}" for video in status.under_way[:_SHOWN])
        if len(status.under_way) > _SHOWN:
            yield f"  and {len(status.under_way) - _SHOWN:,} more"
    if status.letters:
        more = status.dead - len(status.letters)
        yield f"dead letters{f', {more:,} more in dead_letters/' if more else ''}"
    for letter in status.letters:
        yield f"  {letter.path}: {letter.kind}: {_short(letter.message)}"
        yield f"    {letter.remedy}"


def duration(seconds: float) -> str:
    """Seconds in words, to two units: "45 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"."""
    whole = round(seconds)
    for size, unit, below, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // below} {small}"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def _state(status: RunStatus) -> str:
    heard = f"{duration(status.driver.heard_s)} ago" if status.driver else ""
    words = {
        "listing": "going through the archive, nothing is tracked yet",
        "running": "under way",
        "silent": f"its driver was last heard of {heard}, so it has died, or cannot write here; "
        f"if it is gone, {_AGAIN}",
        "stopped": f"stopped by {status.message} {heard}; {_AGAIN}",
        "failed": f"failed {heard}: {_short(status.message)}; then {_AGAIN}",
        "incomplete": f"no run is under way, and not all is done; {_AGAIN}",
        "finished": "finished",
    }
    return words[status.state]


def _rate(rate: Rate | None) -> str:
    if rate is None:
        return "not known yet"
    return (
        f"{rate.frames_s:,.1f} frames/s, {rate.video_s:,.1f} s of video a second, over the last "
        f"{duration(rate.over_s)}"
    )


def _left(left: TimeLeft | None) -> str:
    if left is None:
        return "not known yet"
    text = f"{'at least ' if left.open_end else 'about '}{duration(left.likely_s)}"
    if left.least_s is not None and left.most_s is not None:
        text += f", {duration(left.least_s)} to {duration(left.most_s)} by the last minutes' rates"
    return text + (", because more files are being found" if left.open_end else "")


def _place(video: VideoUnderWay) -> str:
    of = "" if video.frames is None else f" of {video.frames:,}"
    part = f", {video.part}" if video.part else ""
    silent = "not heard of for" if video.silent_s > SILENT_S else "heard of"
    ago = "" if video.silent_s > SILENT_S else " ago"
    return (
        f"{video.path}: frame {video.frame:,}{of}, at {video.second:,.1f} s{part}; worker "
        f"{video.worker}, {silent} {duration(video.silent_s)}{ago}"
    )


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _REASON else f"{line[: _REASON - 1]}…"
