"""The state of a training: what is taken up from it, and which states are refused."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from model.learn.clip_loss import ClipObjective
from model.learn.training import Objective, Trainer, TrainingError
from model.track.tracker import Tracker
from tests.tiny import TINY, tiny_tracker
from tests.training_parts import (
    CONFIG,
    clip_batches,
    new_trainer,
)


class WithProjector(Objective):
    """Trains a projector of its own and keeps a buffer, as distillation does."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.projector = nn.Linear(TINY.semantic_dim, 3)
        self.register_buffer("pull", torch.zeros(()))

    def forward(self, tracker, batch):
        encoded = tracker.encode(*(x.flatten(0, 1) for x in (batch.images, batch.valid,
                                                            batch.patches)))  # fmt: skip
        return self.projector(encoded.scene).square().mean(), {"part": torch.ones(())}

    def after_backward(self, mean):
        self.pull += mean(torch.tensor(1.0 + self.communicator.rank))
        return {"pull": self.pull.clone()}


def test_an_objective_is_trained_along_and_resumed(shards):
    trainer = new_trainer(objective=WithProjector())
    before = trainer.objective.projector.weight.detach().clone()
    steps = list(trainer.run(clip_batches(shards, steps=2)))
    assert [p.terms["pull"] for p in steps] == [1, 2]
    after = trainer.objective.projector.weight.detach()
    assert not torch.equal(before, after)
    resumed = new_trainer(objective=WithProjector())
    resumed.resume(trainer.save(), "here")
    assert torch.equal(resumed.objective.projector.weight, after)
    assert resumed.objective.pull == 2
    assert not any("projector" in name for name in trainer.averaged().state_dict())
    with pytest.raises(TrainingError, match="another objective"):
        new_trainer().resume(trainer.save(), "here")


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing():
    trainer = new_trainer()
    state = trainer.save()
    narrow = Tracker(replace(TINY, dim=16))
    other = Trainer(narrow, ClipObjective(), CONFIG, "cpu")
    before = {n: v.clone() for n, v in narrow.state_dict().items()}
    with pytest.raises(
        TrainingError, match=r"state\.safetensors: of another model: dim is 32 in the state and 16"
    ):
        other.resume(state, "out/state.safetensors")
    assert all(torch.equal(v, before[n]) for n, v in narrow.state_dict().items())
    for damaged in (state[:1000], b"", b"text"):
        with pytest.raises(TrainingError, match="not a readable training state"):
            trainer.resume(damaged, "out/state.safetensors")


def test_a_state_of_another_backbone_is_refused_by_name():
    """Two that differ in padding and colours alone: every shape is the same."""
    state = new_trainer().save()
    plain = Tracker(replace(TINY, backbone="efficientnet_lite0", birth_threshold=0.1))
    other = Trainer(plain, ClipObjective(), CONFIG, "cpu")
    difference = "backbone is tf_efficientnet_lite0 in the state and efficientnet_lite0 now;"
    with pytest.raises(TrainingError, match=f"of another model: {difference}"):
        other.resume(state, "out/state.safetensors")


def test_a_state_goes_from_a_cpu_to_a_gpu_and_back(shards):
    """On a GPU weights lie channels last, and fused kernels insist on one layout for all."""

    def channels_last():
        tracker = tiny_tracker().to(memory_format=torch.channels_last)
        return Trainer(tracker, ClipObjective(), CONFIG, "cpu")

    first = new_trainer()
    list(first.run(clip_batches(shards, steps=1)))
    there = channels_last()
    there.resume(first.save(), "state")
    losses = [p.loss for p in there.run(clip_batches(shards, first=1, steps=2))]
    back = new_trainer()
    back.resume(there.save(), "state")
    losses += [p.loss for p in back.run(clip_batches(shards, first=2, steps=3))]
    wanted = [p.loss for p in first.run(clip_batches(shards, first=1, steps=3))]
    assert losses == pytest.approx(wanted, rel=1e-3)


def test_a_state_of_other_frozen_stages_is_refused(shards):
    trainer = new_trainer(replace(CONFIG, frozen_stages=0))
    list(trainer.run(clip_batches(shards, steps=1)))
    with pytest.raises(TrainingError, match="keep frozen_stages"):
        new_trainer(replace(CONFIG, frozen_stages=3)).resume(trainer.save(), "state")
