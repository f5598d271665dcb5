"""In OpenVINO, too, a step on few slots gives the tracks of a step on all of them."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.inference import openvino_model
from pipeline.inference.runtime import open_model
from tests.crowds import large_tracker, random_window, slots_of_run


@pytest.fixture(scope="module")
def students():
    """The large student in OpenVINO, and a step of it on all slots."""
    tracker = large_tracker()
    student = open_model("openvino", "cpu", tracker.config, "of a crowd", lambda: tracker).model

    def step(frame, state):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(openvino_model, "slot_counts", lambda slots: (slots,))
            (result,), after = student.track(frame, state)
        return result, after

    return student, step


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_crowd_is_tracked_as_on_all_slots(students, seed):
    slots_of_run(*students, random_window(seed, 8))


def test_a_crowd_comes_and_goes_through_all_graphs(students):
    seen = set()
    for seed in range(3):
        seen |= slots_of_run(*students, random_window(seed, 30))
    assert seen == {16, 32, 40}
