"""The training loop in plain PyTorch: optimizer, schedule, averaged weights, resumable state.

It knows neither Ray nor files of videos. Whatever is random belongs to its batch, so a
run that was killed goes on with the loss curve of one that was not. Several workers, each with
its part of every batch, take the steps that one would take with the whole of it.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from model.communicator import Communicator
from model.tracker import Tracker
from model.training_state import StateError, pack_state, unpack_state


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How a student is trained.

    Attributes:
        steps: optimizer steps in all.
        batch: clips a step, over all workers.
        learning_rate: of everything but the backbone.
        backbone_rate: the backbone's, as a share of it.
        weight_decay: of weights that are not biases or norms (AdamW).
        warmup: steps over which the rate rises from 0.
        decay: share of the steps, at the end, over which it falls to 0.
        clip_gradient: greatest gradient norm.
        average: decay of the averaged weights, which are what is shipped.
        frozen_stages: backbone stages that stay as they are; fewer cost more.
        checkpoint_every: steps between checkpoints.
        seed: of everything random.
    """

    steps: int = 10_000
    batch: int = 4
    learning_rate: float = 4e-4
    backbone_rate: float = 0.25
    weight_decay: float = 0.01
    warmup: int = 200
    decay: float = 0.3
    clip_gradient: float = 1.0
    average: float = 0.999
    frozen_stages: int = 2
    checkpoint_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Progress:
    """One step, for whoever watches.

    Attributes:
        step: steps done. loss: total. terms: its parts. learning_rate: of this step.
        frames: frames seen in this step, by all workers.
        seconds: this step took, data included. data_seconds: of them, waiting for data.
        problems: what could not be read while the batch was made, a line each.
    """

    step: int
    loss: float
    terms: dict[str, float]
    learning_rate: float
    frames: int
    seconds: float
    data_seconds: float
    problems: tuple[str, ...] = ()


class Batch(Protocol):
    """What a step is trained on; one that has `problems`, lines of text, gets them reported.

    Attributes:
        valid: (…, 2) height and width of each frame on the canvas.
        names: where it came from.
    """

    @property
    def valid(self) -> Tensor: ...  # noqa: D102
    @property
    def names(self) -> tuple[str, ...]: ...  # noqa: D102
    def to(self, device: torch.device | str) -> "Batch": ...  # noqa: D102


class Objective(nn.Module):
    """What is minimised. The trainer trains its parameters along and saves its whole state.

    Attributes:
        communicator: how to speak to the other workers; set by the trainer. A loss must be that
            of the whole batch: sums over a worker's part are divided by `communicator.mean` of
            the count, and what compares frames with each other gathers them first.
    """

    communicator: Communicator

    def __init__(self) -> None:
        super().__init__()
        self.communicator = Communicator()

    def forward(self, tracker: Tracker, batch: Any) -> tuple[Tensor, dict[str, float]]:
        """Loss of this worker's part of a batch, and its terms for the log.

        Args:
            tracker: in training mode.
            batch: on the tracker's device.
        """
        raise NotImplementedError

    def after_backward(self, mean: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Called between the backward pass and the optimizer; returns more terms.

        Args:
            mean: averages a tensor over all workers.
        """
        return {}


def rate_at(step: int, config: TrainingConfig) -> float:
    """Share of the learning rate at a step: up, level, then down in a line to 0.

    The level part is the same for any number of steps, so a run can be made longer later.
    """
    rise = min(1.0, (step + 1) / max(1, config.warmup))
    tail = max(1, round(config.steps * config.decay))
    return min(rise, (config.steps - step) / tail) if step > config.steps - tail else rise


class Trainer:
    """A tracker in training: weights, their average, optimizer, and the step they are at.

    Args:
        tracker: what is trained; the same weights on every worker.
        objective: what is minimised; its parameters too are the same on every worker.
        config: how.
        device: where.
        communicator: how to speak to the other workers; None for a single one.
    """

    def __init__(
        self,
        tracker: Tracker,
        objective: Objective,
        config: TrainingConfig,
        device: torch.device | str,
        communicator: Communicator | None = None,
    ) -> None:
        self.tracker = tracker.to(device)
        self.objective = objective.to(device)
        self.config = config
        self.device = torch.device(device)
        self.communicator = communicator or Communicator()
        self.step = 0
        objective.communicator = self.communicator
        tracker.backbone.freeze(config.frozen_stages)
        self.optimizer = _optimizer(tracker, objective, config)
        self._trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.average = {
            name: value.detach().clone() for name, value in tracker.state_dict().items()
        }

    def run(self, batches: Iterable[Batch]) -> Iterator[Progress]:
        """Train on batches, which must begin with that of step `self.step`.

        Raises:
            TrainingError: loss or gradient is not finite; names the clips. Weights are left as
                they were before the step.
        """
        self.tracker.train()
        self.objective.train()
        started = time.perf_counter()
        for batch in batches:
            ready = time.perf_counter()
            terms = self._update(batch)
            own = {
                "terms": terms,
                "frames": batch.valid[..., 0].numel(),
                "problems": tuple(getattr(batch, "problems", ())),
            }
            parts = self.communicator.gather_objects(own)
            done = time.perf_counter()
            terms = _mean_terms([part["terms"] for part in parts])
            yield Progress(
                step=self.step,
                loss=terms.pop("loss"),
                terms=terms,
                learning_rate=self.config.learning_rate * rate_at(self.step - 1, self.config),
                frames=sum(part["frames"] for part in parts),
                seconds=done - started,
                data_seconds=ready - started,
                problems=tuple(line for part in parts for line in part["problems"]),
            )
            started = time.perf_counter()

    def _update(self, batch: Batch) -> dict[str, float]:
        share = rate_at(self.step, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * share
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss, terms = self.objective(self.tracker, batch.to(self.device))
        value = loss.detach()
        self._check("loss", float(self.communicator.mean(value)), float(value), batch.names)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        terms = terms | self.objective.after_backward(self.communicator.mean)
        self.communicator.average_gradients(self._trained)
        norm = float(nn.utils.clip_grad_norm_(self._trained, self.config.clip_gradient))
        # A step along an infinite gradient would spoil the weights, and then the checkpoint.
        self._check("gradient", norm, norm, batch.names)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return terms | {"loss": float(value), "gradient_norm": norm}

    def _check(self, what: str, everywhere: float, here: float, names: tuple[str, ...]) -> None:
        """Stop, on all workers or on none, when a number is not finite; name whose clips."""
        if math.isfinite(everywhere):
            return
        found = self.communicator.gather_objects((here, names))
        bad = [n for value, names in found if not math.isfinite(value) for n in names]
        raise TrainingError(
            f"the {what} is {everywhere} at step {self.step} on clips {', '.join(bad)}; "
            "the last checkpoint is intact: resume from it with a lower learning rate, "
            "or leave those clips out"
        )

    @torch.no_grad()
    def _update_average(self) -> None:
        # Young averages follow fast: the first weights are noise.
        decay = min(self.config.average, (1 + self.step) / (10 + self.step))
        for name, value in self.tracker.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def averaged(self) -> Tracker:
        """Return a copy of the tracker with the averaged weights, in eval mode."""
        copy = Tracker(self.tracker.config)
        copy.load_state_dict(self.average)
        return copy.eval()

    def save(self) -> bytes:
        """The whole training state as a safetensors file."""
        return pack_state(self.step, self._sections(), self.optimizer)

    def resume(self, data: bytes, name: str) -> None:
        """Take up the state that `save` made.

        Args:
            data: the file.
            name: where it came from, for messages.

        Raises:
            TrainingError: it is damaged, or belongs to another model, another objective or
                another choice of frozen stages. Nothing is changed then.
        """
        try:
            step, sections = unpack_state(data, self._sections(), self.optimizer)
        except StateError as error:
            raise TrainingError(f"{name}: {error}") from error
        self.tracker.load_state_dict(sections["weight"])
        self.objective.load_state_dict(sections["objective"])
        self.average = {k: v.to(self.device) for k, v in sections["average"].items()}
        self.step = step

    def _sections(self) -> dict[str, dict[str, Tensor]]:
        return {
            "weight": self.tracker.state_dict(),
            "average": self.average,
            "objective": self.objective.state_dict(),
        }


def train(
    trainer: Trainer,
    batches: Iterable[Batch],
    checkpoint: Callable[[Trainer], None],
    watch: Callable[[Progress], None],
) -> None:
    """Run to the last step, calling `checkpoint` every so often and at the end."""
    config = trainer.config
    if trainer.step >= config.steps:
        return
    for progress in trainer.run(batches):
        watch(progress)
        if trainer.step % config.checkpoint_every == 0 or trainer.step >= config.steps:
            checkpoint(trainer)
        if trainer.step >= config.steps:
            return


def _mean_terms(parts: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each term over the workers that have it."""
    names = dict.fromkeys(name for part in parts for name in part)
    values = {name: [part[name] for part in parts if name in part] for name in names}
    return {name: sum(found) / len(found) for name, found in values.items()}


def _optimizer(
    tracker: Tracker, objective: Objective, config: TrainingConfig
) -> torch.optim.Optimizer:
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in [*tracker.named_parameters(), *objective.named_parameters()]:
        if parameter.requires_grad:
            key = (name.startswith("backbone."), parameter.ndim > 1)
            groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "base_lr": config.learning_rate * (config.backbone_rate if backbone else 1.0),
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (backbone, decays), parameters in groups.items()
        ],
        lr=config.learning_rate,
    )
