"""How a student is trained: the settings, and the schedule that they make."""

import math
from dataclasses import dataclass
from typing import Annotated

from model.settings import Range, check

STEPS = 10_000
"""Optimizer steps of a training that is given no budget."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How a student is trained.

    Attributes:
        steps: optimizer steps in all; 0 where minutes are the budget.
        minutes: time of training in all, waits for data included, over all times that it is taken
            up; the rate then falls along a cosine over this time. 0 trains for `steps`.
        batch: clips a step, over all workers.
        learning_rate: of everything but the backbone.
        backbone_rate: the backbone's, as a share of it.
        weight_decay: of weights that are not biases or norms (AdamW).
        warmup: steps over which the rate rises from 0.
        decay: share of the steps, at the end, over which it falls to 0; without minutes.
        clip_gradient: greatest gradient norm.
        average: decay of the averaged weights, which are what is shipped.
        frozen_stages: backbone stages that stay as they are; fewer cost more.
        batch_statistics: normalise by the batch, over all workers, in all trained layers behind
            the backbone; for wide batches of different frames. Else by fixed statistics.
        compile: compile backbone and encoder on a GPU; it takes a minute or two at the start.
        score: measure the student after the last step, on the stills kept for validation.
        checkpoint_every: steps between checkpoints.
        seed: of everything random.
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
            object.__setattr__(self, "steps", 0)  # the default is no budget beside minutes
        elif not self.steps:
            raise ValueError("steps: 0 was given; without minutes it must be 1 or more")


def share_used(step: int, seconds: float, config: TrainingConfig) -> float:
    """Share of the budget that is used after so many steps and seconds; 1 is the end."""
    used = seconds / (60 * config.minutes) if config.minutes else step / config.steps
    return min(1.0, used)


def rate_at(step: int, config: TrainingConfig, seconds: float = 0.0) -> float:
    """Share of the learning rate at a step.

    With steps for a budget: up, level, then down in a line to 0. The level part is the same for
    any number of steps, so a run can be made longer later. With minutes: up, then along half a
    cosine to 0, which taught fastest in a given time.

    Args:
        step: steps done.
        config: of the training.
        seconds: of training done.
    """
    rise = min(1.0, (step + 1) / max(1, config.warmup))
    if config.minutes:
        return rise * (1 + math.cos(math.pi * share_used(step, seconds, config))) / 2
    tail = max(1, round(config.steps * config.decay))
    return min(rise, (config.steps - step) / tail) if step > config.steps - tail else rise
