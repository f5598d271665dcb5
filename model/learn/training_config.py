"""Settings of a training, and the schedule of its learning rate."""

import math
from dataclasses import dataclass
from typing import Annotated

from model.settings import Range, check

STEPS = 10_000
"""Optimizer steps of a training for which neither steps nor minutes are given."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Budget, optimizer and schedule of the training.

    Attributes:
        steps: optimizer steps of the whole training, resumed runs included; 0 if training.minutes
            is given.
        minutes: minutes of the whole training, waiting for data and resumed runs included. The
            learning rate then falls along a cosine over this time. 0: train for training.steps.
        batch: clips (vsdmot train) or frames (vsdmot distill) in one step, over all workers.
        learning_rate: peak learning rate of all weights but the backbone's.
        backbone_rate: learning rate of the backbone, as a multiple of training.learning_rate.
        weight_decay: decoupled weight decay, as in AdamW; biases and norms have none.
        warmup: steps at the start in which the learning rate rises from 0 to its peak.
        decay: share of the steps, at the end, in which the learning rate falls to 0; unused with
            training.minutes.
        clip_gradient: norm to which a larger gradient is clipped.
        average: decay of the moving average of the weights; the average is saved as the student.
        frozen_stages: number of backbone stages, from the input on, that are not trained; with
            fewer, a step takes longer.
        batch_statistics: true: in steps on single frames, layers behind the backbone normalise by
            the statistics of the batch, over all workers; this suits large batches. In steps on
            clips, and with false, by fixed statistics.
        compile: compile backbone and encoder with torch.compile, on a GPU only; this takes a
            minute or two at the start.
        score: measure AP50 of the student on the stills of split val after the last step.
        checkpoint_every: steps between two checkpoints.
        seed: seed of all random numbers.
    """

    steps: Annotated[int, Range(0)] = STEPS
    minutes: Annotated[float, Range(0, math.inf, below=True)] = 0.0
    batch: Annotated[int, Range(1)] = 4
    learning_rate: float = 4e-4
    backbone_rate: float = 0.25
    weight_decay: float = 0.01
    warmup: int = 200
    decay: float = 0.3
    clip_gradient: float = 1.0
    average: float = 0.999
    frozen_stages: int = 2
    batch_statistics: bool = False
    compile: bool = False
    score: bool = False
    checkpoint_every: Annotated[int, Range(1)] = 200
    seed: int = 0

    def __post_init__(self) -> None:
        check(self)
        if self.minutes:
            if self.steps not in (0, STEPS):
                raise ValueError(
                    f"steps={self.steps} and minutes={self.minutes:g} are both given; one of them "
                    "is the budget: set the other to 0"
                )
            # Minutes replace the default number of steps.
            object.__setattr__(self, "steps", 0)
        elif not self.steps:
            raise ValueError("steps: 0 was given; without minutes it must be 1 or more")


def share_used(step: int, seconds: float, config: TrainingConfig) -> float:
    """Used share of the budget after `step` steps and `seconds` seconds; 1 at the end."""
    used = seconds / (60 * config.minutes) if config.minutes else step / config.steps
    return min(1.0, used)


def rate_at(step: int, config: TrainingConfig, seconds: float = 0.0) -> float:
    """Learning rate of a step, as a share of the peak.

    If the budget is a number of steps, the rate rises, stays constant, and falls linearly to 0.
    The constant part does not depend on the number of steps, so a run can be made longer later.
    If the budget is a time, the rate rises and then falls to 0 along half a cosine. Of the
    schedules that were tried, this one learned most in a given time.

    Args:
        step: steps done.
        config: settings of the training.
        seconds: seconds of training done.
    """
    rise = min(1.0, (step + 1) / max(1, config.warmup))
    if config.minutes:
        return rise * (1 + math.cos(math.pi * share_used(step, seconds, config))) / 2
    tail = max(1, round(config.steps * config.decay))
    return min(rise, (config.steps - step) / tail) if step > config.steps - tail else rise
