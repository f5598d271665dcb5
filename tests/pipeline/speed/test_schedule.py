"""The model of the schedule does what a plain simulation does, and what arithmetic says."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.speed.schedule import (
    DECODE,
    DRIVER,
    MODEL,
    STORE,
    Rates,
    capacity,
    efficiency,
    finish,
    saturation,
)

rate = st.floats(0.1, 1e4)
rates = st.builds(Rates, rate, rate, st.floats(1, 64), rate, rate, rate, rate)
videos = st.lists(st.integers(1, 20), min_size=1, max_size=12)


def simulated(videos, workers, hand_out):
    """Tick by tick: each worker is idle, waits for the driver, or works."""
    waiting, left = sorted(videos), [0] * workers
    handing, busy_for = None, 0  # the worker that the driver serves, and for how many ticks more
    ticks = 0
    while True:
        # Videos that take no time to hand out may start in the same tick.
        while True:
            if handing is not None and busy_for == 0:
                left[handing] = waiting.pop()
                handing = None
            idle = [w for w in range(workers) if left[w] == 0]
            if handing is not None or not waiting or not idle:
                break
            handing, busy_for = idle[0], hand_out
        if handing is None and not any(left):
            return ticks
        ticks += 1
        busy_for = max(0, busy_for - 1)
        left = [max(0, ticks_left - 1) for ticks_left in left]


@given(videos, st.integers(1, 5), st.integers(0, 4))
def test_a_run_ends_when_a_plain_simulation_ends(videos, workers, hand_out):
    assert finish(videos, workers, hand_out) == simulated(videos, workers, hand_out)


@given(videos, st.integers(1, 5), st.floats(0, 3))
def test_a_run_takes_no_less_than_its_work_and_no_more_than_a_list_schedule(
    videos, workers, hand_out
):
    whole = finish(videos, workers, hand_out)
    each = [v + hand_out for v in videos]
    assert whole >= max(max(each), sum(videos) / workers, len(videos) * hand_out) - 1e-9
    if not hand_out:  # Graham's bound
        assert whole <= sum(videos) / workers + max(videos) * (1 - 1 / workers) + 1e-9
    assert whole <= sum(each) + 1e-9
    assert finish(videos, workers + 1, 0) <= finish(videos, workers, 0) + max(videos)


@given(rates, st.integers(1, 200))
def test_equal_videos_go_through_at_the_rate_of_the_bottleneck(rates, gpus):
    """Of GPUs and driver; a worker's hand-out is part of its turn."""
    work = rates.video_frames / rates.one_gpu
    hand_out = 1 / rates.driver_videos_s
    turns = 60
    whole = finish([work] * (gpus * turns), gpus, hand_out)
    least = max(turns * work, gpus * turns * hand_out)
    # What the model leaves out is the first round of hand-outs and one hand-out a turn.
    assert least * (1 - 1e-9) <= whole <= least + work + (gpus + turns) * hand_out


@given(rates, st.integers(1, 2000))
def test_a_cluster_is_as_fast_as_its_bottleneck(rates, gpus):
    found = capacity(rates, gpus)
    assert found.frames_s == found.limits[found.bottleneck] == min(found.limits.values())
    assert max(found.use.values()) == pytest.approx(1)
    more = capacity(rates, gpus + 1)
    assert more.frames_s >= found.frames_s
    for fixed in (STORE, DRIVER):
        assert more.limits[fixed] == found.limits[fixed]
    for growing in (MODEL, DECODE):
        assert more.limits[growing] > found.limits[growing]


@given(rates)
def test_beyond_saturation_a_gpu_adds_nothing_and_before_it_all(rates):
    ends = min(saturation(rates).values())
    after = max(1, math.ceil(ends))
    assert capacity(rates, after + 1).frames_s == pytest.approx(
        capacity(rates, 2 * after + 2).frames_s
    )
    before = math.floor(ends)
    if before >= 1:
        assert capacity(rates, before).frames_s == pytest.approx(before * rates.one_gpu)


@given(rates, st.integers(1, 50), st.lists(st.floats(1, 1e5), max_size=40))
def test_no_gpu_works_more_than_all_the_time(rates, gpus, video_frames):
    assert 0 < efficiency(rates, gpus, video_frames) <= 1 + 1e-9
