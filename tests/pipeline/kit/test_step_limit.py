"""What limits a step of training."""

from model.learn.clip_loss import ClipObjective
from model.learn.training import Trainer
from pipeline.kit.step_limit import StepTimes, limit, measure_step
from tests.tiny import tiny_tracker
from tests.training_parts import CONFIG, clip_stream


def test_the_limit_is_named_by_how_it_is_known():
    def times(half, achieved):
        return StepTimes(0.1, half, achieved, 8e14)

    assert limit(0.4, times(0.05, 4e14)).startswith("loader: 40% of the time")
    assert limit(0.02, times(0.09, 1e13)).startswith("launches: 2% of the time waiting for data")
    assert limit(0.02, times(0.052, 4e13)).startswith("memory bandwidth:")
    assert limit(0.02, times(0.052, 5e14)).startswith("arithmetic:")
    assert limit(0.02, None).startswith("not the loader")


def test_steps_without_a_loader_are_timed(shards):
    stream = clip_stream(shards)
    other = Trainer(tiny_tracker(), ClipObjective(), CONFIG, "cpu")
    items = [stream.items[i] for i in range(4)]
    times = measure_step(other, items, stream.collate, 0.5)
    assert 0 < times.half < 1.5 * times.whole and 0 <= times.fixed <= 1
    assert 0 < times.achieved < times.product
