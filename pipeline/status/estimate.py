"""How fast a run goes, and how long it will take, from its last minutes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.runtime.heartbeat import Beat

_SPAN_S = 55.0  # shortest stretch of which a rate of its own is taken
_FEWEST = 3  # stretches below which their rates say nothing about a range

Sample = tuple[float, int, float]


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a run was.

    Attributes:
        frames_s: Frames in a second, of all workers together.
        video_s: Seconds of video in a second.
        over_s: Seconds over which it was measured.
    """

    frames_s: float
    video_s: float
    over_s: float


@dataclass(frozen=True, slots=True)
class TimeLeft:
    """How long a run will take, in seconds.

    Attributes:
        likely_s: At the rate of the last minutes.
        least_s, most_s: At the fastest and the slowest of these minutes; None while it is too
            early to tell.
        open_end: Whether files are still being found, so that it will take longer.
    """

    likely_s: float
    least_s: float | None
    most_s: float | None
    open_end: bool


def rate_of(samples: Sequence[Sample]) -> Rate | None:
    """The rate between the first and the last sample; None if there is only one."""
    if len(samples) < 2:
        return None
    (start, frames, video_s), (end, frames_now, video_s_now) = samples[0], samples[-1]
    over_s = end - start
    if over_s <= 0:
        return None
    return Rate((frames_now - frames) / over_s, (video_s_now - video_s) / over_s, over_s)


def time_left(beat: Beat) -> TimeLeft | None:
    """The time left of a run; None if nothing was tracked in the last minutes.

    Frames of videos whose header was not read yet are taken to be as many as those of the others.
    The last videos of a run bound the time from below: a video has one worker, and others cannot
    help it.
    """
    rate, totals = rate_of(beat.samples), beat.totals
    if rate is None or rate.frames_s <= 0:
        return None
    each = totals.frames_expected / totals.planned if totals.planned else 0.0
    frames = max(0, totals.frames_expected - totals.frames) + totals.unplanned * each
    longest_s = _longest_s(beat, rate.frames_s)
    likely_s = max(frames / rate.frames_s, longest_s)
    rates = [r for r in _rates(beat.samples) if r > 0]
    if len(rates) < _FEWEST:
        return TimeLeft(likely_s, None, None, not totals.whole)
    least_s = max(frames / max(rates), longest_s * rate.frames_s / max(rates))
    most_s = max(frames / min(rates), longest_s * rate.frames_s / min(rates))
    return TimeLeft(
        likely_s, min(least_s, likely_s), max(most_s, likely_s), open_end=not totals.whole
    )


def _longest_s(beat: Beat, frames_s: float) -> float:
    """Time for the longest rest of a video under way, if all of them are equally fast."""
    whole = [v for v in beat.under_way if not v.window and v.frames is not None]
    left = max((max(0, v.frames - v.frame) for v in whole if v.frames is not None), default=0)
    return left * len(beat.under_way) / frames_s


def _rates(samples: Sequence[Sample]) -> list[float]:
    """Frames/s of stretches of about a minute, one after the other."""
    found = []
    start, frames, _ = samples[0]
    for now, frames_now, _ in samples[1:]:
        if now - start >= _SPAN_S:
            found.append((frames_now - frames) / (now - start))
            start, frames = now, frames_now
    return found
