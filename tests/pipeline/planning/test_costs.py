"""What a frame takes by the readings of a trial, and how far the work may be off."""

from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.planning.asked import Chunk
from pipeline.planning.costs import Costs, spread, work
from pipeline.planning.trial import Reading


def reading(frame_s, pixels=100, frames=50, entry_s=0.0):
    return Reading("a.mp4", pixels, frames, frame_s * frames, entry_s, 60.0, 9000.0)


def chunk(*pieces, workers=2):
    frames, pixels = zip(*pieces, strict=True)
    return Chunk(workers, array("d", frames), array("d", pixels))


def test_a_picture_costs_what_the_nearest_measured_one_does():
    costs = Costs.measured([reading(0.1, 100), reading(0.2, 400), reading(0.4, 6400)])
    # The middle of 100 and 400 is 200 by the logarithm, of 400 and 6400 it is 1600.
    frames = [(1, pixels) for pixels in (10, 199, 201, 1599, 1601, 10**6)]
    assert costs.seconds(chunk(*frames)) == pytest.approx([0.1, 0.1, 0.2, 0.2, 0.4, 0.4])


def test_readings_of_one_size_count_by_their_frames_and_a_video_costs_its_entry():
    costs = Costs.measured(
        [reading(0.1, frames=30, entry_s=2.0), reading(0.2, frames=10, entry_s=1.0)]
    )
    assert costs.seconds(chunk((80, 100), (0, 100))) == pytest.approx([11.0, 1.0])
    assert work(costs, [chunk((80, 100)), chunk((0, 100))]) == pytest.approx(12.0)
    assert (costs.frame_bytes, costs.video_bytes) == (60.0, 9000.0)


def test_a_given_rate():
    assert Costs.given(25.0).seconds(chunk((100, 1), (50, 10**7))) == pytest.approx([4.0, 2.0])


def test_the_spread_of_equal_readings_is_none_and_of_one_is_not_known():
    some = [chunk((1000, 100))]
    assert spread([reading(0.1)] * 5, some) == pytest.approx(1.0)
    assert spread([reading(0.1)], some) is None


def test_the_range_holds_the_truth_nine_times_of_ten():
    """Rates of stretches drawn from a known distribution, as the trial draws stretches."""
    random = np.random.default_rng(0)
    some = [chunk((1000, 100))]
    held, trials = 0, 400
    for _ in range(trials):
        rates = random.lognormal(0.0, 0.3, 6)
        readings = [reading(float(rate)) for rate in rates]
        factor = spread(readings, some)
        found = work(Costs.measured(readings), some)
        truth = 1000 * float(np.exp(0.3**2 / 2))
        held += found / factor <= truth <= found * factor
    assert held / trials == pytest.approx(0.9, abs=0.05)


@given(st.lists(st.tuples(st.floats(1e-3, 10), st.integers(1, 10**7)), min_size=2, max_size=8))
def test_the_factor_is_one_or_more_and_finite(values):
    factor = spread([reading(seconds, pixels) for seconds, pixels in values], [chunk((9, 1000))])
    assert factor is not None
    assert 1 <= factor < np.inf
