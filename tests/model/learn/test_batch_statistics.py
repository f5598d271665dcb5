"""Normalisation by the batch: of all workers, of trained layers behind the backbone alone."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load
from torch import nn
from torch.nn import functional as F

from model.communicator import Communicator
from model.learn.batch_statistics import MOMENTUM, BatchStatistics, use_batch_statistics
from model.learn.clip_loss import ClipObjective
from model.learn.part_loss import train_only
from model.learn.training import Trainer, TrainingError
from pipeline.training.batches import batches
from pipeline.training.fit import fit
from pipeline.training.run_folder import STATE
from tests.tiny import tiny_inputs, tiny_tracker
from tests.training_parts import (
    ALONE,
    CLIPS,
    CONFIG,
    Smooth,
    clip_stream,
    clip_task,
)

SINGLE = replace(CLIPS, length=1)
WIDE = replace(CONFIG, steps=2, batch=4, batch_statistics=True)


class Two(Communicator):
    """Two workers in one process: the other one has the other half of the batch."""

    def __init__(self, other):
        super().__init__()
        self.world, self.other = 2, other

    def gather(self, value):
        count = value.new_tensor([self.other.numel() / self.other.shape[1]])
        variance, mean = torch.var_mean(self.other, (0, 2, 3), correction=0)
        return torch.cat([value, torch.cat([count, mean, variance])[None]])


def test_half_a_batch_is_normalised_by_the_whole():
    generator = torch.Generator().manual_seed(0)
    # Far from zero, where a mean of squares would lose what a variance is made of.
    whole = torch.randn(6, 3, 4, 5, generator=generator) * 0.1 + 300
    plain = nn.BatchNorm2d(3, momentum=MOMENTUM)
    nn.init.uniform_(plain.weight)
    wanted = plain(whole)
    fresh = nn.BatchNorm2d(3)
    fresh.load_state_dict(nn.BatchNorm2d(3).state_dict() | {"weight": plain.weight.detach()})
    shared = BatchStatistics(fresh, Two(whole[2:])).train()
    torch.testing.assert_close(shared(whole[:2]), wanted[:2], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(shared.running_mean, plain.running_mean)
    torch.testing.assert_close(shared.running_var, plain.running_var, rtol=1e-3, atol=1e-5)


def test_trained_layers_behind_the_backbone_look_at_the_batch_and_no_other():
    tracker = tiny_tracker()
    names = list(tracker.state_dict())
    use_batch_statistics(tracker, Communicator())
    tracker.train()
    assert list(tracker.state_dict()) == names
    looking = {n for n, m in tracker.named_modules() if isinstance(m, BatchStatistics)}
    fixed = {n for n, m in tracker.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert looking and fixed
    assert all(n.startswith("backbone.") for n in fixed)
    assert all(tracker.get_submodule(n).training for n in looking)
    assert not any(tracker.get_submodule(n).training for n in fixed)
    part = tiny_tracker()
    train_only(part, ["tracks"])
    use_batch_statistics(part, Communicator())
    assert not any(isinstance(m, BatchStatistics) for m in part.modules())


def states_of_one_and_two(two_processes, shards, folder, objective):
    """States after a step in one process and in two, and what was told of it."""
    config = replace(WIDE, steps=1)
    two = two_processes(shards, folder / "two", config, SINGLE, objective)
    one = []
    fit(clip_task(shards, folder / "one", config, SINGLE, objective), *ALONE, one.append)
    states = [load((folder / name / STATE).read_bytes()) for name in ("one", "two")]
    return states, (one[0], two[0])


def test_two_workers_see_the_batch_of_one(two_processes, shards, tmp_path):
    (one, two), (told, told_two) = states_of_one_and_two(
        two_processes, shards, tmp_path, ClipObjective
    )
    assert told_two["frames"] == told.frames == 4
    assert told_two["loss"] == pytest.approx(told.loss, rel=1e-4)
    clipped = {"gradient_norm"}  # losses of boxes have kinks, and rounding chooses a side
    terms = {k: v for k, v in told.terms.items() if k not in clipped}
    assert {k: told_two["terms"][k] for k in terms} == pytest.approx(terms, rel=1e-3, abs=1e-5)
    start = {f"weight/{k}": v for k, v in tiny_tracker().state_dict().items()}
    statistics = [k for k in start if "running_" in k]
    moved = [k for k in statistics if not torch.equal(one[k], start[k])]
    assert moved and not any("backbone." in k for k in moved)
    for key in moved:
        torch.testing.assert_close(two[key], one[key], rtol=1e-4, atol=1e-5)
        # What is shipped has those of the live student, not a mean of them over steps.
        assert torch.equal(one[key], one[key.replace("weight/", "average/")])


def test_two_workers_have_the_gradient_of_one(two_processes, shards, tmp_path):
    states, _ = states_of_one_and_two(two_processes, shards, tmp_path, Smooth)
    one, two = (
        {k: v for k, v in state.items() if k.endswith("exp_avg") and v.any()} for state in states
    )
    assert len(one) > 50 and one.keys() == two.keys()
    assert max(float(v.norm()) for v in one.values()) > 0.01
    for key, value in one.items():
        assert (two[key] - value).norm() < 1e-3 * value.norm() + 1e-7, key


def test_after_training_running_statistics_decide(shards):
    trainer = Trainer(tiny_tracker(), ClipObjective(), WIDE, "cpu")
    list(trainer.run(batches(clip_stream(shards, SINGLE), (4,), 0, 2, 0)))
    tracker = trainer.averaged()
    images, valid, patches = tiny_inputs(4)
    together = tracker.encode(images, valid, patches)
    alone = tracker.encode(images[:1], valid[:1], patches[:1])
    torch.testing.assert_close(together.visual[:1], alone.visual, rtol=1e-4, atol=1e-4)
    live = trainer.tracker.eval()
    for name, value in live.named_buffers():
        if "running_" in name:
            assert torch.equal(tracker.get_buffer(name), value), name
    # In training the same frame says something else in another batch.
    live.train()
    first, whole = (live.encode(images[:n], valid[:n], patches[:n]).visual[:1] for n in (1, 4))
    assert not torch.allclose(first, whole, rtol=1e-2, atol=1e-2)


def test_a_step_on_clips_keeps_running_statistics(shards):
    trainer = Trainer(tiny_tracker(), ClipObjective(), replace(WIDE, batch=2), "cpu")
    before = {n: v.clone() for n, v in trainer.tracker.named_buffers() if "running_" in n}
    list(trainer.run(batches(clip_stream(shards), (2,), 0, 1, 0)))
    buffers = dict(trainer.tracker.named_buffers())
    assert all(torch.equal(buffers[n], v) for n, v in before.items())
    list(trainer.run(batches(clip_stream(shards, SINGLE), (4,), 0, 1, 0)))
    assert any(not torch.equal(buffers[n], v) for n, v in before.items())


def test_a_norm_in_eval_mode_is_the_one_it_replaced():
    norm = nn.BatchNorm2d(4)
    nn.init.normal_(norm.running_mean)
    x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    wanted = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    assert torch.equal(BatchStatistics(norm, Communicator()).eval()(x), wanted)


class Spoilt(Smooth):
    """Looks at the batch, and ends in a loss that is no number."""

    def forward(self, tracker, batch):
        loss, terms = super().forward(tracker, batch)
        return loss * float("nan"), terms


def test_a_spoilt_step_leaves_running_statistics_as_they_were(shards):
    trainer = Trainer(tiny_tracker(), Spoilt(), WIDE, "cpu")
    before = {n: v.clone() for n, v in trainer.tracker.state_dict().items()}
    with pytest.raises(TrainingError, match="loss is nan at step 0"):
        list(trainer.run(batches(clip_stream(shards, SINGLE), (4,), 0, 1, 0)))
    assert all(torch.equal(v, before[n]) for n, v in trainer.tracker.state_dict().items())
