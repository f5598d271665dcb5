"""Batches: the shares of workers make up a step, and clip i is the same from every loader."""

import pytest
import torch

from pipeline.training.batches import share
from tests.training_parts import (
    clip_batches,
)


def test_shares_of_a_step_make_up_the_step():
    for world in (1, 2, 3):
        parts = [i for rank in range(world) for i in share(5, (6,), rank, world)]
        assert parts == list(range(30, 36))
    with pytest.raises(ValueError, match=r"batch of 6 cannot be divided .* 4 workers"):
        share(0, (6,), 0, 4)


def test_steps_of_several_sizes_have_items_of_their_own():
    steps = [list(share(step, (6, 6, 2), 0, 1)) for step in range(6)]
    assert [len(items) for items in steps] == [6, 6, 2, 6, 6, 2]
    assert steps[2] == [12, 13] and steps[3] == list(range(18, 24))
    halves = [i for rank in range(2) for i in share(2, (6, 6, 2), rank, 2)]
    assert halves == steps[2]
    with pytest.raises(ValueError, match=r"batch of 2 cannot be divided .* singles\.batch"):
        share(2, (6, 6, 2), 0, 4)


def test_clip_i_is_the_same_in_every_run_and_loader(shards):
    one = list(clip_batches(shards, steps=3))
    other = list(clip_batches(shards, steps=3, loaders=1))
    later = list(clip_batches(shards, first=2, steps=3))
    for a, b in [*zip(one, other, strict=True), (one[2], later[0])]:
        assert a.names == b.names and torch.equal(a.images, b.images)
        assert torch.equal(a.boxes, b.boxes) and torch.equal(a.severity, b.severity)
