"""The measure of training: its parts are those of a step, and it says how fast."""

import pytest

from model.communicator import Communicator
from pipeline.training.batches import batches
from pipeline.training.speed import LOADER, REST, measure_training
from tests.training_parts import CLIPS, CONFIG, build, clip_stream


def test_the_parts_of_a_step_sum_to_all_of_it(shards):
    stream = batches(clip_stream(shards, CLIPS), (CONFIG.batch,), 0, 0, 0)
    speed = measure_training(build(CONFIG, "cpu", Communicator()), stream, 2)
    assert sum(speed.shares.values()) == pytest.approx(1)
    assert speed.frames_per_second > 0
    parts = {"forward", "dense assignment", "matching", "tracks", "backward", LOADER, REST}
    assert speed.shares.keys() == parts
    assert all(0 < share < 1 for share in speed.shares.values()), speed.shares
