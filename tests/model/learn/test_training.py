"""The loop of training: it learns, waits for its device once, and stops at bad numbers."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from model.communicator import Communicator
from model.learn.clip_loss import clip_loss
from model.learn.training import Objective, TrainingError
from model.learn.training_config import TrainingConfig, rate_at
from tests.tiny import tiny_tracker
from tests.training_parts import (
    CONFIG,
    clip_batches,
    new_trainer,
)


def test_the_loss_falls_on_one_batch(shards):
    batch = next(iter(clip_batches(shards)))
    config = replace(CONFIG, steps=25, warmup=1, decay=0.01)
    losses = [p.loss for p in new_trainer(config).run([batch] * 25)]
    assert np.mean(losses[-3:]) < 0.75 * np.mean(losses[:3])


def test_every_part_that_is_to_be_trained_gets_a_gradient(shards):
    tracker = tiny_tracker().train()
    # Layers that start at zero let nothing through on the first step.
    for parameter in tracker.parameters():
        if float(parameter.detach().abs().max()) == 0:
            torch.nn.init.normal_(parameter, std=0.05)
    loss = clip_loss(tracker, next(iter(clip_batches(shards))), Communicator()).total
    loss.backward()
    without = [n for n, p in tracker.named_parameters() if p.grad is None]
    assert without == []


def test_a_loss_that_is_not_finite_stops_with_the_clips_named(shards):
    trainer = new_trainer()
    trainer.tracker.head.regress.bias.data.fill_(float("nan"))
    batch = next(iter(clip_batches(shards)))
    with pytest.raises(TrainingError, match=f"loss is nan at step 0.*{batch.names[0]}"):
        list(trainer.run([batch]))


class Spiked(Objective):
    """A finite loss whose gradient is not."""

    def forward(self, tracker, batch):
        return (tracker.gate.bias - tracker.gate.bias.detach()).abs().sqrt(), {}


def test_a_gradient_that_is_not_finite_leaves_the_weights_as_they_were(shards):
    trainer = new_trainer(objective=Spiked())
    before = {n: v.clone() for n, v in trainer.tracker.state_dict().items()}
    batch = next(iter(clip_batches(shards)))
    with pytest.raises(TrainingError, match=f"gradient is nan at step 0.*{batch.names[0]}"):
        list(trainer.run([batch]))
    for name, value in trainer.tracker.state_dict().items():
        assert torch.equal(value, before[name]), name


class Plain(Objective):
    """Cheap, and with many terms."""

    def forward(self, tracker, batch):
        loss = tracker.gate.bias.square().sum()
        return loss, {f"term{i}": loss.detach() for i in range(5)}


def test_a_step_waits_for_its_device_once(shards, monkeypatch):
    trainer, batch = new_trainer(objective=Plain()), next(iter(clip_batches(shards)))
    waits = []

    def counted(name, original):
        def call(tensor):
            waits.append(name)
            return original(tensor)

        return call

    for name in ("tolist", "item", "__float__", "__bool__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, counted(name, getattr(torch.Tensor, name)))
    steps = list(trainer.run([batch] * 3))
    assert waits == ["tolist"] * 3
    assert [len(step.terms) for step in steps] == [6] * 3


def test_the_rate_rises_stays_and_falls():
    config = TrainingConfig(steps=100, warmup=10, decay=0.2)
    rates = [rate_at(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9:81] == [1.0] * 72
    assert all(a > b for a, b in pairwise(rates[80:])) and rates[-1] < 0.1
