"""A step on few slots gives the tracks of a step on all of them."""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.track.rules import TrackRules
from model.track.slots import slot_counts, step_on_few_slots, with_slots
from model.track.tracks import TrackState, lifecycle
from tests.crowds import large_tracker, random_window, slots_of_run

COUNTS = (2, 4, 9)
DETECTIONS = 5
OF_SLOTS = ("track_id", "active", "misses")


def random_boxes(generator, *shape):
    # A coarse grid makes boxes that coincide likely.
    corner = torch.randint(0, 4, (*shape, 2), generator=generator) * 40.0
    return torch.cat([corner, corner + 30], -1)


def frame_on(seed, level, streams):
    """A step of the lifecycle alone, whose scores depend on the slot, not on their number."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(streams, COUNTS[-1] + DETECTIONS, generator=generator)
    scores[:, COUNTS[-1] :] *= level  # a crowd comes, or goes
    boxes = random_boxes(generator, streams, COUNTS[-1] + DETECTIONS)

    def step(state):
        slots = state.active.shape[1]
        taken = [*range(slots), *range(COUNTS[-1], COUNTS[-1] + DETECTIONS)]
        rules = TrackRules(0.5, 0.5, 0.7, seed % 3)
        t = lifecycle(state, scores[:, taken], boxes[:, taken], rules)
        changed = {name: getattr(t, name) for name in (*OF_SLOTS, "next_id")}
        return (t.visible, slots), replace(state, **changed)

    return step


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.sampled_from([0.0, 0.6, 1.0])), max_size=30),
    st.integers(1, 2),
)
@settings(max_examples=100, deadline=None)
def test_any_crowd_is_numbered_as_on_all_slots(frames, streams):
    whole = few = TrackState.empty(streams, COUNTS[-1], 3, 1)
    for seed, level in frames:
        step = frame_on(seed, level, streams)
        (seen, _), whole = step(whole)
        (seen_few, slots), few = step_on_few_slots(step, few, COUNTS)
        for name in OF_SLOTS:
            assert torch.equal(getattr(few, name), getattr(whole, name)[:, :slots]), name
        assert torch.equal(seen_few, seen[:, :slots])
        assert torch.equal(few.next_id, whole.next_id)
        assert not whole.active[:, slots:].any()


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_the_student_tracks_any_crowd_as_on_all_slots(seed):
    tracker = large_tracker()
    slots_of_run(tracker, tracker.step, random_window(seed, 8))


def test_a_crowd_comes_and_goes_through_all_numbers_of_slots():
    tracker = large_tracker()
    seen = set()
    for seed in range(3):
        seen |= slots_of_run(tracker, tracker.step, random_window(seed, 30))
    assert seen == {16, 32, 40}


@torch.inference_mode()
def test_windows_change_not_one_bit():
    tracker = large_tracker()
    window = random_window(1, 12)
    whole, _ = tracker.track(window, tracker.initial_state(1))
    state, parts = tracker.initial_state(1), []
    for part in (slice(0, 1), slice(1, 7), slice(7, 12)):
        results, state = tracker.track(window[part], state)
        parts += results
    for a, b in zip(whole, parts, strict=True):
        assert all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))


@pytest.mark.parametrize(
    ("slots", "counts"),
    [(10, (10,)), (16, (16,)), (40, (16, 32, 40)), (100, (16, 32, 100)), (200, (16, 32, 100, 200))],
)
def test_numbers_of_slots_end_with_all(slots, counts):
    assert slot_counts(slots) == counts


def test_more_slots_are_free_and_fewer_are_the_first():
    state = replace(
        TrackState.empty(1, 3, 2, 1),
        active=torch.tensor([[True, True, False]]),
        content=torch.ones(1, 3, 2),
    )
    more = with_slots(state, 5)
    assert more.active.tolist() == [[True, True, False, False, False]]
    assert more.track_id[0, 3:].tolist() == [-1, -1]
    back = with_slots(more, 2)
    assert all(x.shape[1] == 2 for x in (back.content, back.boxes, back.misses, back.track_id))
    assert back.next_id is state.next_id
