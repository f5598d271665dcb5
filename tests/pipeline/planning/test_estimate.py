"""The figures of a plan from the work and the readings of a trial."""

from collections import Counter

import pytest

from pipeline.planning.asked import Asked, Place
from pipeline.planning.calibration import Calibration
from pipeline.planning.config import PlanConfig
from pipeline.planning.estimate import estimate
from pipeline.tracking.track_video import TrackSettings
from tests.pipeline.planning.test_costs import chunk, reading


def test_the_longest_piece_is_that_of_most_seconds_not_of_most_frames():
    readings = [reading(0.1, pixels=100), reading(1.0, pixels=10_000)]
    asked = Asked(
        TrackSettings("weights"), Place("cpu", 2, here=True), videos=2, frames=70.0,
        modes=Counter(video=2), chunks=[chunk((50, 100), (20, 10_000))],
        longest={100: ("small.mp4", 50.0), 10_000: ("large.mp4", 20.0)},
    )  # fmt: skip
    config = PlanConfig(input="in", price_per_hour=3600.0)
    found = estimate(config, asked, Calibration(2, readings, start_s=1.0))
    assert (found.time.longest, found.time.longest_s) == ("large.mp4", pytest.approx(20.0))
    start_s = found.time.start_s
    assert found.time.wall_s.expected == pytest.approx(20.0 + start_s)
    # The worker of the small video waits for the other one, and is paid.
    assert found.cost.expected == pytest.approx(2 * (20.0 + start_s))
    assert found.time.frames_s == pytest.approx(70 / 25)
    assert found.disk.output == pytest.approx(70 * 60.0 + 2 * 9000.0)
