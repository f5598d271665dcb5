from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.net.decoder import DecoderOutput
from model.track.tracks import TrackState
from model.track.transport import Transport, _mutual

HERE = [0.5, 0.5, 0.1, 0.3]


def detections(*rows):
    """Boxes in centre form with their logits, as the only layer of a decoder."""
    boxes = torch.tensor([[[row[:4] for row in rows]]])
    logits = torch.tensor([[[[row[4]] for row in rows]]])
    return DecoderOutput(logits, boxes, torch.zeros(1, len(rows), 8))


def tracks(*boxes, logit=1.0):
    state = TrackState.empty(1, len(boxes), 8, 1)
    return replace(
        state,
        boxes=torch.tensor([boxes]),
        logits=torch.full_like(state.logits, logit),
        active=torch.ones_like(state.active),
    )


@torch.no_grad()
def transported(state, *rows):
    return Transport(8)(state, detections(*rows))


def test_a_track_moves_to_where_its_person_is_now():
    moved = [0.51, 0.5, 0.1, 0.3, 2.0]
    found = transported(tracks(HERE), moved, [0.8, 0.5, 0.1, 0.3, 3.0])
    torch.testing.assert_close(found.boxes[0, 0], torch.tensor(moved[:4]), atol=0.003, rtol=0)
    assert 1.5 < float(found.logits) < 2.2
    assert found.newness[0, 0] < 0.01 and found.newness[0, 1] > 0.9


def test_a_track_with_nobody_near_stays_and_fades():
    here = [0.2, 0.5, 0.1, 0.3]
    found = transported(tracks(here), [0.8, 0.5, 0.1, 0.3, -1.0])
    torch.testing.assert_close(found.boxes[0, 0], torch.tensor(here), atol=0.02, rtol=0)
    assert float(found.logits) < 0.2


def test_a_track_between_two_people_follows_one_all_the_way():
    left, right = [0.47, 0.5, 0.1, 0.3, 2.0], [0.54, 0.5, 0.1, 0.3, 2.0]
    found = transported(tracks(HERE), left, right)
    torch.testing.assert_close(found.boxes[0, 0], torch.tensor(left[:4]))
    assert found.answered.all()


def test_a_track_that_nobody_answers_goes_on_as_before():
    state = replace(tracks(HERE), velocity=torch.tensor([[[0.02, 0.0]]]))
    found = transported(state, [0.1, 0.5, 0.1, 0.3, 2.0])
    assert not found.answered.any()
    torch.testing.assert_close(found.boxes[0, 0], torch.tensor([0.52, 0.5, 0.1, 0.3]))


def test_a_person_who_was_walking_is_asked_for_where_he_would_be():
    # Two frames unseen, at a box's width a frame: he no longer overlaps where he was last.
    ahead = [0.5 + 0.1 * (1 + 0.9 + 0.81), 0.5, 0.1, 0.3, 2.0]
    gone = replace(tracks(HERE), misses=torch.full((1, 1), 2))
    assert not transported(gone, ahead).answered.any()
    walking = replace(gone, velocity=torch.tensor([[[0.1, 0.0]]]))
    assert transported(walking, ahead).answered.all()


def test_two_tracks_do_not_follow_one_person():
    beside = [0.53, 0.5, 0.1, 0.3]
    found = transported(tracks(HERE, beside), [*HERE, 2.0])
    mine, other = found.logits[0, :, 0]
    assert mine > 1 > other, "the nearer one takes the person, the other one fades"


def test_of_two_people_just_as_near_a_track_follows_the_first():
    moved = [0.51, 0.5, 0.1, 0.3]
    found = transported(tracks(HERE), [*moved, 2.0], [*moved, 2.0])
    assert found.answered.all()
    torch.testing.assert_close(found.boxes[0, 0], torch.tensor(moved))


@given(st.integers(0, 2**31), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_nobody_has_two_partners_however_many_agree_as_well(seed, streams, slots, count):
    random = torch.Generator().manual_seed(seed)
    agreed = torch.randint(0, 3, (streams, slots, count), generator=random) * 0.4
    chosen = _mutual(agreed)
    assert chosen.sum(1).max() <= 1 and chosen.sum(2).max() <= 1
    for stream, track, detection in agreed.nonzero().tolist():
        rivals = agreed[stream].clone()
        rivals[track, detection] = -1
        best = torch.stack([rivals[track].max(), rivals[:, detection].max()]).max()
        if agreed[stream, track, detection] > best:
            assert chosen[stream, track, detection] == 1


def test_an_empty_slot_claims_nobody():
    state = tracks(HERE)
    empty = replace(state, active=torch.zeros_like(state.active))
    assert float(transported(empty, [*HERE, 2.0]).newness) > 0.99


def test_the_order_of_detections_does_not_matter():
    near, far = [0.52, 0.5, 0.1, 0.3, 1.0], [0.9, 0.5, 0.1, 0.3, -3.0]
    one, other = (transported(tracks(HERE), *rows) for rows in ((near, far), (far, near)))
    torch.testing.assert_close(one.boxes, other.boxes)
    torch.testing.assert_close(one.newness, other.newness.flip(1))


@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_shares_are_shares_for_any_tracks_and_detections(seed, slots, count):
    random = torch.Generator().manual_seed(seed)
    boxes = torch.rand(slots + count, 4, generator=random).clamp(0.01, 0.99)
    rows = [[*box, 0.5] for box in boxes[slots:].tolist()]
    found = transported(tracks(*boxes[:slots].tolist()), *rows)
    torch.testing.assert_close(found.of_track.exp().sum(-1), torch.ones(1, slots))
    torch.testing.assert_close(found.of_detection.exp().sum(1), torch.ones(1, count))
    # What moves never adds up to more than a whole track or a whole detection.
    moved = (found.of_track[..., :-1] + found.of_detection[:, :-1]).exp()
    assert moved.sum(1).max() <= 1.0001 and moved.sum(2).max() <= 1.0001
    assert ((found.newness >= 0) & (found.newness <= 1)).all()
