"""Boxes of what is seen and of whole people: who teaches which, and what is tracked."""

from dataclasses import replace

import torch

from model.communicator import Communicator
from model.learn.clip_batch import Extent
from model.learn.clip_loss import clip_loss
from tests.model.learn.test_clip_loss import make_batch
from tests.tiny import tiny_inputs, tiny_tracker


def test_a_new_student_draws_one_box_and_tracks_whole_people():
    tracker = tiny_tracker()
    encoded = tracker.encode(*tiny_inputs(2))
    torch.testing.assert_close(encoded.people.boxes[-1], encoded.seen)
    torch.nn.init.constant_(tracker.whole[-1].bias, 0.3)
    encoded = tracker.encode(*tiny_inputs(2))
    assert not torch.allclose(encoded.people.boxes[-1], encoded.seen)
    tracked = tracker.decode(encoded, tracker.initial_state(2))
    torch.testing.assert_close(tracked.boxes[:, tracker.config.slots :], encoded.people.boxes[-1])


def test_boxes_of_the_other_convention_cost_nothing():
    tracker = tiny_tracker(lively=True).train()
    batch = make_batch(clips=1, length=1)

    def costs(extent):
        labels = torch.full_like(batch.extent, extent)
        terms = clip_loss(tracker, replace(batch, extent=labels), Communicator()).terms
        return {name: value.item() for name, value in terms.items()}

    whole, seen, loose = costs(Extent.WHOLE), costs(Extent.SEEN), costs(Extent.LOOSE)
    assert whole["giou"] == whole["dense_giou"] == 0 < whole["whole_giou"]
    assert seen["whole_giou"] == 0 < min(seen["giou"], seen["dense_giou"])
    boxes = {name for name in loose if name.endswith(("giou", "l1"))}
    assert len(boxes) == 5 and all(loose[name] == 0 for name in boxes)
    # They still say that somebody is there.
    for name in ("class", "dense_class"):
        assert loose[name] == seen[name] > 0
