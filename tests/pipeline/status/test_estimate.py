"""Rates and times left, against runs whose end is known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.runtime.heartbeat import Totals, VideoPlace
from pipeline.status.estimate import rate_of, time_left
from tests.pipeline.runtime.test_heartbeat import beat


def samples(*rates):
    """Six samples a minute, at each of these rates for a minute; 25 frames a second of video."""
    found, frames = [(0.0, 0, 0.0)], 0.0
    for minute, rate in enumerate(rates):
        for tenth in range(1, 7):
            frames += rate * 10
            found.append((minute * 60 + tenth * 10.0, round(frames), frames / 25))
    return found


def place(frame, frames, window=""):
    return VideoPlace("a", "a", "video", window, "h:1", frame, frames, 0.0, 0.0)


def test_a_steady_run_takes_what_is_left_over_its_rate():
    made = beat(
        samples=samples(50, 50, 50),
        totals=Totals(frames=9000, frames_expected=24000, planned=2, whole=True),
    )
    rate = rate_of(made.samples)
    assert (rate.frames_s, rate.video_s, rate.over_s) == (50, 2, 180)
    left = time_left(made)
    assert (left.likely_s, left.least_s, left.most_s, left.open_end) == (300, 300, 300, False)


def test_videos_that_wait_are_as_long_as_the_others():
    totals = Totals(frames=1000, frames_expected=2000, planned=4, unplanned=6, whole=False)
    left = time_left(beat(samples=samples(10, 10, 10), totals=totals))
    assert left.likely_s == (1000 + 6 * 500) / 10
    assert left.open_end


def test_the_last_long_video_bounds_the_time():
    """Four at 25 frames/s each; three are nearly done, and nobody can help the fourth."""
    places = [place(0, 10_000), *[place(990, 1000)] * 3]
    totals = Totals(frames=2970, frames_expected=13_000, planned=4, whole=True)
    left = time_left(beat(samples=samples(100, 100, 100), totals=totals, under_way=places))
    assert left.likely_s == left.least_s == pytest.approx(10_000 / 25)
    windows = [place(0, 10_000, "w0of4")] * 4  # which many workers share
    left = time_left(beat(samples=samples(100, 100, 100), totals=totals, under_way=windows))
    assert left.likely_s == pytest.approx(10_030 / 100)


def test_nothing_is_told_too_early():
    assert rate_of([(0.0, 0, 0.0)]) is None
    assert time_left(beat()) is None
    assert time_left(beat(samples=samples(0, 0))) is None  # nothing moves
    short = time_left(beat(samples=samples(10, 20), totals=Totals(frames_expected=150, planned=1)))
    assert short.likely_s == 10
    assert short.least_s is short.most_s is None


@given(
    st.lists(st.integers(1, 500), min_size=3, max_size=5),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 50),
)
def test_the_likely_time_lies_in_its_range(rates, done, expected, unplanned):
    totals = Totals(frames=done, frames_expected=expected, planned=3, unplanned=unplanned)
    places = [place(5, expected)] * 3
    left = time_left(beat(samples=samples(*rates), totals=totals, under_way=places))
    assert 0 <= left.least_s <= left.likely_s <= left.most_s
