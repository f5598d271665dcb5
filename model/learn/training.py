"""The training loop in plain PyTorch: optimizer, averaged weights, resumable state.

It imports neither Ray nor video code. Each batch has its own random seeds, so a resumed run has the
same loss curve as an uninterrupted one. Several workers share each batch, and together take the
same step as one worker with the whole batch.

The host waits for the device once per step, at its end, to get the figures of the step.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from model.communicator import Communicator
from model.learn.average import AveragedWeights
from model.learn.batch_statistics import BatchStatistics, use_batch_statistics
from model.learn.optimizer import MuonAdamW, suits_muon
from model.learn.training_config import TrainingConfig, rate_at, share_used
from model.learn.training_state import Position, StateError, pack_state, unpack_state
from model.track.tracker import Tracker


class TrainingError(RuntimeError):
    """Training cannot continue; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Figures of one step, for logs and displays.

    Attributes:
        step: number of steps done.
        loss: total loss of this step.
        terms: other figures of the loss and the optimizer, by name.
        learning_rate: learning rate of this step.
        frames: frames in this step, over all workers.
        seconds: time of this step, waiting for data included.
        data_seconds: time of this step that was spent waiting for data.
        problems: a line for each picture that could not be read.
        frames_seen: frames in all steps so far.
        budget_used: used share of the budget of steps or minutes.
    """

    step: int
    loss: float
    terms: dict[str, float]
    learning_rate: float
    frames: int
    seconds: float
    data_seconds: float
    problems: tuple[str, ...] = ()
    frames_seen: int = 0
    budget_used: float = 0.0


class Batch(Protocol):
    """A batch of training data. An optional attribute `problems` has lines of text to report.

    Attributes:
        valid: (…, 2) height and width of each frame on the canvas.
        names: sources of its frames.
        single: whether each frame is a scene of its own, so that their statistics are those of
            frames in general.
    """

    @property
    def valid(self) -> Tensor: ...  # noqa: D102
    @property
    def names(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def single(self) -> bool: ...  # noqa: D102
    def to(self, device: torch.device | str) -> "Batch": ...  # noqa: D102


class Objective(nn.Module):
    """A loss to minimise. The trainer also trains its parameters and saves its state.

    Attributes:
        communicator: of this worker with the others; set by the trainer. Averaged over the
            workers, the loss must be that of the whole batch. So a sum over the part of a worker
            is divided by `communicator.mean` of the count, and terms that compare frames with
            each other gather the frames of all workers first.
    """

    communicator: Communicator

    def __init__(self) -> None:
        super().__init__()
        self.communicator = Communicator()

    def forward(self, tracker: Tracker, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of this worker's part of a batch, and terms for the log.

        Args:
            tracker: in training mode.
            batch: on the tracker's device.

        Returns:
            the loss, and terms by name, which are scalars on the same device without gradient.
        """
        raise NotImplementedError

    def after_backward(self, mean: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Return more terms; called between the backward pass and the optimizer step.

        Args:
            mean: averages a tensor over all workers.
        """
        return {}


@dataclass(frozen=True, slots=True)
class _WorkerFigures:
    """Figures of one worker in a step; `seconds` is the time since the step before."""

    terms: dict[str, float]
    frames: int
    problems: tuple[str, ...]
    seconds: float


class Trainer:
    """A tracker in training: weights, their average, optimizer and position.

    Args:
        tracker: the model to train; equal weights on every worker.
        objective: the loss to minimise; equal parameters on every worker.
        config: settings of the training.
        device: device of this worker.
        communicator: of this worker with the others; None for a single worker.

    Attributes:
        position: how far the training has come; equal on every worker.
    """

    def __init__(
        self,
        tracker: Tracker,
        objective: Objective,
        config: TrainingConfig,
        device: torch.device | str,
        communicator: Communicator | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.tracker = tracker.to(self.device)
        self.objective = objective.to(self.device)
        self.config = config
        self.communicator = communicator or Communicator()
        self.position = Position()
        objective.communicator = self.communicator
        tracker.backbone.freeze(config.frozen_stages)
        self._batch_norms: list[BatchStatistics] = []
        if config.batch_statistics:
            self._batch_norms = use_batch_statistics(tracker, self.communicator)
        if self.device.type == "cuda":
            # Convolutions in bfloat16 are fastest in this format.
            tracker.to(memory_format=torch.channels_last)
            if config.compile:
                tracker.backbone.compile()
                tracker.encoder.compile()
        self.optimizer = _optimizer(tracker, objective, config)
        self._trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.average = AveragedWeights(tracker)

    @property
    def step(self) -> int:
        """Steps done."""
        return self.position.step

    @property
    def budget_used(self) -> float:
        """Used share of the steps or minutes; the training ends at 1."""
        return share_used(self.position.step, self.position.seconds, self.config)

    def run(self, batches: Iterable[Batch]) -> Iterator[Progress]:
        """Train on batches and yield the figures of each step; the first batch is of `self.step`.

        The used time counts from the first request for a batch. It includes the time between
        steps. The time of the first worker counts for all workers.

        Raises:
            TrainingError: loss or gradient is not finite; names the clips. The weights are those
                before the step.
        """
        self.tracker.train()
        self.objective.train()
        counted = started = time.perf_counter()
        for batch in batches:
            ready = time.perf_counter()
            rate = self._rate()
            terms = self._update(batch, rate)
            done = time.perf_counter()
            own = _WorkerFigures(
                terms,
                batch.valid[..., 0].numel(),
                tuple(getattr(batch, "problems", ())),
                done - counted,
            )
            counted = done
            parts = self.communicator.gather_objects(own)
            frames = sum(part.frames for part in parts)
            self.position = Position(
                self.position.step + 1,
                self.position.frames + frames,
                self.position.seconds + parts[0].seconds,
            )
            self._update_average()
            terms = _mean_terms([part.terms for part in parts])
            yield Progress(
                step=self.position.step,
                loss=terms.pop("loss"),
                terms=terms,
                learning_rate=self.config.learning_rate * rate,
                frames=frames,
                seconds=done - started,
                data_seconds=ready - started,
                problems=tuple(line for part in parts for line in part.problems),
                frames_seen=self.position.frames,
                budget_used=self.budget_used,
            )
            started = time.perf_counter()

    def _rate(self) -> float:
        return rate_at(self.position.step, self.config, self.position.seconds)

    def _update(self, batch: Batch, rate: float) -> dict[str, float]:
        """Take a step at `rate` times the peak learning rates; return its figures."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate
        for layer in self._batch_norms:
            layer.train(batch.single)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss, terms = self.objective(self.tracker, batch.to(self.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        terms = terms | self.objective.after_backward(self.communicator.mean)
        self.communicator.average_gradients(self._trained)
        norm = nn.utils.clip_grad_norm_(self._trained, self.config.clip_gradient)
        mean_loss = self.communicator.mean(loss.detach())
        # A gradient that is not finite would destroy the weights. If `found_inf` is 1, the
        # optimizer skips the step, and the host need not wait for the device.
        not_finite = ~(mean_loss.isfinite() & norm.isfinite())
        self.optimizer.found_inf = not_finite.float()  # type: ignore[attr-defined]
        self.optimizer.step()
        values = {"mean_loss": mean_loss, "loss": loss.detach(), "gradient_norm": norm} | terms
        transferred = torch.stack([value.float() for value in values.values()]).tolist()
        figures = dict(zip(values, transferred, strict=True))
        self._check("loss", figures.pop("mean_loss"), figures["loss"], batch.names)
        self._check("gradient", figures["gradient_norm"], figures["gradient_norm"], batch.names)
        return figures

    def _check(self, figure: str, overall: float, own: float, names: tuple[str, ...]) -> None:
        """Raise on all workers if a figure is not finite; the message names the clips.

        Args:
            figure: its name.
            overall: its value over all workers.
            own: its value on this worker.
            names: clips of this worker.
        """
        if math.isfinite(overall):
            return
        self.average.restore_statistics()
        found = self.communicator.gather_objects((own, names))
        bad = [n for value, names in found if not math.isfinite(value) for n in names]
        raise TrainingError(
            f"the {figure} is {overall} at step {self.step} on clips {', '.join(bad)}; "
            "the last checkpoint is intact: resume from it with a lower learning rate, "
            "or leave those clips out"
        )

    def _update_average(self) -> None:
        # The decay is small at first, because the first weights are random.
        self.average.update(min(self.config.average, (1 + self.step) / (10 + self.step)))

    def averaged(self) -> Tracker:
        """Return a copy of the tracker with the averaged weights, on its device, in eval mode."""
        copy = Tracker(self.tracker.config)
        copy.load_state_dict(self.average.values)
        return copy.to(self.device).eval()

    def save(self) -> bytes:
        """Return the whole training state as a safetensors file."""
        config = self.tracker.config.to_dict()
        return pack_state(self.position, config, self._sections(), self.optimizer)

    def resume(self, data: bytes, name: str) -> None:
        """Resume from the state that `save` made.

        Args:
            data: the file.
            name: name of the file, for messages.

        Raises:
            TrainingError: the file is damaged, or is of another model, another objective or
                other frozen stages. The trainer is unchanged then.
        """
        config = self.tracker.config.to_dict()
        try:
            position, sections = unpack_state(data, config, self._sections(), self.optimizer)
        except StateError as error:
            raise TrainingError(f"{name}: {error}") from error
        self.tracker.load_state_dict(sections["weight"])
        self.objective.load_state_dict(sections["objective"])
        self.average.load(sections["average"])
        self.position = position

    def _sections(self) -> dict[str, dict[str, Tensor]]:
        return {
            "weight": self.tracker.state_dict(),
            "average": self.average.values,
            "objective": self.objective.state_dict(),
        }


def train(
    trainer: Trainer,
    batches: Iterable[Batch],
    checkpoint: Callable[[Trainer], None],
    on_progress: Callable[[Progress], None],
) -> None:
    """Train to the end of the budget.

    Args:
        trainer: trains; its `config` has the budget.
        batches: from that of step `trainer.step` on.
        checkpoint: called every `checkpoint_every` steps and at the end.
        on_progress: called after each step.
    """
    if trainer.budget_used >= 1:
        return
    for progress in trainer.run(batches):
        on_progress(progress)
        over = trainer.budget_used >= 1
        if over or trainer.step % trainer.config.checkpoint_every == 0:
            checkpoint(trainer)
        if over:
            return


def _mean_terms(parts: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each term over the workers that have it."""
    names = dict.fromkeys(name for part in parts for name in part)
    values = {name: [part[name] for part in parts if name in part] for name in names}
    return {name: sum(found) / len(found) for name, found in values.items()}


def _optimizer(tracker: Tracker, objective: Objective, config: TrainingConfig) -> MuonAdamW:
    groups: dict[tuple[bool, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in [*tracker.named_parameters(), *objective.named_parameters()]:
        if parameter.requires_grad:
            key = (name.startswith("backbone."), parameter.ndim > 1, suits_muon(name, parameter))
            groups.setdefault(key, []).append(parameter)
    return MuonAdamW(
        [
            {
                "params": parameters,
                "base_lr": config.learning_rate * (config.backbone_rate if backbone else 1.0),
                "weight_decay": config.weight_decay if decays else 0.0,
                "muon": muon,
            }
            for (backbone, decays, muon), parameters in groups.items()
        ],
        lr=config.learning_rate,
    )
