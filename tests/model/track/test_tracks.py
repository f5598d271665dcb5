"""Properties of the lifecycle, over random frames of random streams."""

from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.track.rules import TrackRules
from model.track.tracks import TrackState, expected_boxes, lifecycle, updated_velocity

RULES = TrackRules(birth_threshold=0.6, keep_threshold=0.4, duplicate_iou=0.7, miss_tolerance=2)
SLOTS, DETECTIONS = 4, 6


def apply(state, transition):
    """Only what the lifecycle decides; the rest of the state is not its business."""
    values = state.tensors() | {
        name: getattr(transition, name) for name in ("track_id", "active", "misses", "next_id")
    }
    return TrackState(**values)


def random_frame(seed, batch=2):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(batch, SLOTS + DETECTIONS, generator=generator)
    corner = torch.rand(batch, SLOTS + DETECTIONS, 2, generator=generator) * 100
    # A coarse grid makes boxes that coincide likely.
    corner = (corner / 40).round() * 40
    return scores, torch.cat([corner, corner + 30], -1)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=25))
@settings(max_examples=60, deadline=None)
def test_identities_are_unique_never_reused_and_never_come_back(seeds):
    state = TrackState.empty(2, SLOTS, 3, 1)
    ended = [set(), set()]
    given_out = [set(), set()]
    last_seen: list[dict[int, int]] = [{}, {}]
    for frame, seed in enumerate(seeds):
        before = state
        transition = lifecycle(state, *random_frame(seed), RULES)
        state = apply(state, transition)
        for b in range(2):
            alive = state.track_id[b][state.active[b]].tolist()
            assert len(alive) == len(set(alive)) and min(alive, default=1) >= 1
            assert not ended[b] & set(alive)
            assert (state.track_id[b][~state.active[b]] == -1).all()
            born = transition.track_id[b][transition.born[b]].tolist()
            assert not given_out[b] & set(born)
            given_out[b] |= set(born)
            ended[b] |= set(before.track_id[b][before.active[b]].tolist()) - set(alive)
            for slot in range(SLOTS):
                if transition.visible[b, slot]:
                    last_seen[b][int(transition.track_id[b, slot])] = frame
            for identity in alive:
                unseen = frame - last_seen[b][identity]
                assert unseen <= RULES.miss_tolerance
                slot = state.track_id[b].tolist().index(identity)
                assert int(state.misses[b, slot]) == unseen


@given(st.integers(0, 10_000), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_streams_of_a_batch_do_not_know_of_each_other(first, second):
    together = TrackState.empty(2, SLOTS, 3, 1)
    alone = [TrackState.empty(1, SLOTS, 3, 1) for _ in range(2)]
    for seed in (first, second, first + second):
        scores, boxes = random_frame(seed)
        together = apply(together, lifecycle(together, scores, boxes, RULES))
        for b in range(2):
            one = slice(b, b + 1)
            alone[b] = apply(alone[b], lifecycle(alone[b], scores[one], boxes[one], RULES))
            for name in ("track_id", "active", "misses", "next_id"):
                assert torch.equal(getattr(together, name)[one], getattr(alone[b], name))


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=8), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_carried_frames_age_a_track_as_frames_in_which_it_is_unseen(seeds, count):
    state = TrackState.empty(2, SLOTS, 3, 1)
    for seed in seeds:
        state = apply(state, lifecycle(state, *random_frame(seed), RULES))
    seen = state.active & (state.misses == 0)
    stepped = state
    nothing = torch.zeros(2, SLOTS + DETECTIONS)
    for _ in range(count):
        # Those that were seen are seen in all frames.
        scores = nothing.clone()
        scores[:, :SLOTS][seen] = 1.0
        apart = torch.arange(SLOTS + DETECTIONS)[None, :, None] * 50.0
        boxes = torch.cat([apart, apart, apart + 30, apart + 30], -1).expand(2, -1, -1)
        stepped = apply(stepped, lifecycle(stepped, scores, boxes, RULES))
    for frames in (count, torch.tensor([count, count])):
        aged = state.aged(frames, RULES.miss_tolerance)
        for name in ("track_id", "active", "misses", "next_id"):
            assert torch.equal(getattr(aged, name), getattr(stepped, name))


def frame_of(boxes, scores):
    """A frame in which no track slot is live and the detections are given."""
    empty = torch.zeros(1, SLOTS, 4)
    padding = DETECTIONS - len(boxes)
    boxes = torch.cat([empty, torch.tensor([boxes + [[0.0, 0, 1, 1]] * padding])], 1)
    scores = torch.tensor([[0.0] * SLOTS + scores + [0.0] * padding])
    return scores, boxes


def test_two_queries_on_one_box_give_one_birth():
    state = TrackState.empty(1, SLOTS, 3, 1)
    box = [10.0, 10, 50, 90]
    transition = lifecycle(
        state, *frame_of([box, box, [100.0, 10, 140, 90]], [0.9, 0.9, 0.8]), RULES
    )
    assert int(transition.born.sum()) == 2
    assert transition.source[0][transition.born[0]].tolist() == [SLOTS, SLOTS + 2]


def test_a_detection_on_a_seen_track_is_not_born():
    state = TrackState.empty(1, SLOTS, 3, 1)
    box = [10.0, 10, 50, 90]
    state = apply(state, lifecycle(state, *frame_of([box], [0.9]), RULES))
    scores, boxes = frame_of([box], [0.95])
    scores[0, 0], boxes[0, 0] = 0.5, torch.tensor(box)
    transition = lifecycle(state, scores, boxes, RULES)
    assert not transition.born.any() and bool(transition.visible[0, 0])


def test_when_slots_run_out_the_best_newborns_get_them():
    state = TrackState.empty(1, SLOTS, 3, 1)
    boxes = [[40.0 * i, 0, 40.0 * i + 30, 30] for i in range(DETECTIONS)]
    scores = [0.61, 0.99, 0.7, 0.62, 0.8, 0.9]
    transition = lifecycle(state, *frame_of(boxes, scores), RULES)
    taken = sorted((transition.source[0] - SLOTS).tolist())
    assert taken == [1, 2, 4, 5] and int(transition.next_id) == SLOTS + 1


def one_track(**values):
    return replace(TrackState.empty(1, 1, 3, 1), **values)


def test_velocity_approaches_that_of_a_steady_walk_and_predicts_it():
    state, step = one_track(), torch.tensor([0.01, -0.004])
    seen, born = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.bool)
    for _ in range(40):
        boxes = torch.cat([state.boxes[..., :2] + step, state.boxes[..., 2:]], -1)
        velocity = updated_velocity(state, boxes, seen, born, 0.2)
        state = replace(state, boxes=boxes, velocity=velocity)
    torch.testing.assert_close(state.velocity[0, 0], step, rtol=1e-3, atol=0)
    torch.testing.assert_close(expected_boxes(state)[0, 0, :2], state.boxes[0, 0, :2] + step)
    unseen = replace(state, misses=torch.full((1, 1), 3))
    assert (expected_boxes(unseen) - state.boxes)[0, 0, 0] > 3 * step[0]
    for_ever = replace(state, misses=torch.full((1, 1), 10_000))
    way = (expected_boxes(for_ever) - state.boxes)[0, 0, :2]
    torch.testing.assert_close(way, 10 * step, rtol=1e-2, atol=0)


def test_velocity_counts_the_frames_unseen_and_begins_at_rest():
    state = one_track(misses=torch.full((1, 1), 1), velocity=torch.full((1, 1, 2), 0.5))
    yes, no = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.bool)
    boxes = state.boxes + 0.2
    assert torch.equal(updated_velocity(state, boxes, no, no, 1.0), state.velocity)
    torch.testing.assert_close(
        updated_velocity(state, boxes, yes, no, 1.0), torch.full((1, 1, 2), 0.1)
    )
    assert not updated_velocity(state, boxes, yes, yes, 1.0).any()


def test_each_stream_of_a_batch_may_have_its_own_rules():
    strict = replace(RULES, birth_threshold=0.95, miss_tolerance=0)
    mixed = TrackRules(
        *(torch.tensor([getattr(r, f.name) for r in (RULES, strict)]) for f in fields(RULES))
    )
    together = TrackState.empty(2, SLOTS, 3, 1)
    alone = [TrackState.empty(1, SLOTS, 3, 1) for _ in range(2)]
    different = False
    for seed in range(20):
        scores, boxes = random_frame(seed)
        together = apply(together, lifecycle(together, scores, boxes, mixed))
        for b, rules in enumerate((RULES, strict)):
            one = slice(b, b + 1)
            alone[b] = apply(alone[b], lifecycle(alone[b], scores[one], boxes[one], rules))
            assert torch.equal(together.track_id[one], alone[b].track_id)
        different = different or not torch.equal(alone[0].track_id, alone[1].track_id)
    assert different


def test_a_state_is_read_back_with_as_few_slots_as_it_has():
    like = TrackState.empty(1, slots=8, dim=4, classes=1)
    saved = replace(
        TrackState.empty(1, slots=5, dim=4, classes=1),
        track_id=torch.arange(5)[None],
        quality=torch.tensor([0.25]),
    )
    found = TrackState.from_tensors(saved.tensors(), like)
    assert all(torch.equal(found.tensors()[name], x) for name, x in saved.tensors().items())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"content": torch.zeros(1, 5, 6)}, r"content is torch.float32 \[1, 5, 6\], not .*5, 4\]"),
        ({"misses": torch.zeros(1, 5)}, "misses is torch.float32"),
        ({"boxes": None}, "boxes is missing"),
        ({"active": None}, "of another model"),
        ({"next_id": torch.ones(2, dtype=torch.long)}, r"next_id is torch.int64 \[2\]"),
    ],
)
def test_a_state_of_another_model_is_refused(changes, words):
    tensors = TrackState.empty(1, slots=5, dim=4, classes=1).tensors() | changes
    given = {name: x for name, x in tensors.items() if x is not None}
    with pytest.raises(ValueError, match=words):
        TrackState.from_tensors(given, TrackState.empty(1, slots=8, dim=4, classes=1))


def test_more_slots_than_the_model_has_are_refused():
    tensors = TrackState.empty(1, slots=9, dim=4, classes=1).tensors()
    with pytest.raises(ValueError, match="of another model"):
        TrackState.from_tensors(tensors, TrackState.empty(1, slots=8, dim=4, classes=1))


def test_a_new_shot_keeps_identities_alone():
    state = replace(
        TrackState.empty(1, slots=3, dim=4, classes=1),
        content=torch.ones(1, 3, 4),
        track_id=torch.tensor([[4, 7, -1]]),
        active=torch.tensor([[True, True, False]]),
        next_id=torch.tensor([8]),
        quality=torch.tensor([0.5]),
    )
    after = state.without_tracks(TrackState.empty(1, 3, 4, 1))
    expected = replace(TrackState.empty(1, 3, 4, 1), next_id=torch.tensor([8]))
    assert all(torch.equal(after.tensors()[n], x) for n, x in expected.tensors().items())
