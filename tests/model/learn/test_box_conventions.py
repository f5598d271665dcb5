"""Boxes of what is seen and of whole people: who teaches which, and what is tracked."""

from dataclasses import replace

import torch

from model.communicator import Communicator
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

    def boxes_cost(whole):
        flags = torch.full_like(batch.whole, whole)
        terms = clip_loss(tracker, replace(batch, whole=flags), Communicator()).terms
        return {name: terms[name].item() for name in ("giou", "dense_giou", "whole_giou")}

    of_video, of_still = boxes_cost(True), boxes_cost(False)
    assert of_video["giou"] == of_video["dense_giou"] == 0 < of_video["whole_giou"]
    assert of_still["whole_giou"] == 0 < min(of_still["giou"], of_still["dense_giou"])
