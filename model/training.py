"""The training loop in plain PyTorch: optimizer, schedule, averaged weights, resumable state.

It knows neither Ray nor files of videos. Everything random is a function of (seed, step), so a
run that was killed goes on with the loss curve of one that was not.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from model.clip_loss import ClipBatch, clip_loss
from model.tracker import Tracker


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How a student is trained.

    Attributes:
        steps: optimizer steps in all.
        batch: clips a step.
        learning_rate: of everything but the backbone.
        backbone_rate: the backbone's, as a share of it.
        weight_decay: of weights that are not biases or norms (AdamW).
        warmup: steps over which the rate rises from 0.
        decay: share of the steps, at the end, over which it falls to 0.
        clip_gradient: greatest gradient norm.
        average: decay of the averaged weights, which are what is shipped.
        frozen_stages: backbone stages that stay as they are; fewer cost more.
        proposals_only: leave the decoder alone, as the first part of a training from scratch.
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
    proposals_only: bool = False
    checkpoint_every: int = 200
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """One step, for whoever watches.

    Attributes:
        step: steps done. loss: total. terms: its parts. learning_rate: of this step.
        frames: frames seen in this step. seconds: this step took, data included.
        data_seconds: of them, waiting for data.
    """

    step: int
    loss: float
    terms: dict[str, float]
    learning_rate: float
    frames: int
    seconds: float
    data_seconds: float


def rate_at(step: int, config: TrainingConfig) -> float:
    """Share of the learning rate at a step: up, level, then down in a line to 0.

    The level part is the same for any number of steps, so a run can be made longer later.
    """
    rise = min(1.0, (step + 1) / max(1, config.warmup))
    tail = max(1, round(config.steps * config.decay))
    return min(rise, (config.steps - step) / tail) if step > config.steps - tail else rise


class Trainer:
    """A tracker in training: weights, their average, optimizer, and the step they are at."""

    def __init__(
        self, tracker: Tracker, config: TrainingConfig, device: torch.device | str
    ) -> None:
        self.tracker = tracker.to(device)
        self.config = config
        self.device = torch.device(device)
        self.step = 0
        tracker.backbone.freeze(config.frozen_stages)
        self.optimizer = _optimizer(tracker, config)
        self.average = {
            name: value.detach().clone() for name, value in tracker.state_dict().items()
        }

    def run(self, batches: Iterable[ClipBatch]) -> Iterator[Progress]:
        """Train on batches, which must begin with that of step `self.step`.

        Raises:
            TrainingError: the loss is not finite; names the clips of the batch.
        """
        self.tracker.train()
        started = time.perf_counter()
        for batch in batches:
            ready = time.perf_counter()
            loss, terms = self._update(batch.to(self.device), batch.names)
            done = time.perf_counter()
            rate = self.config.learning_rate * rate_at(self.step - 1, self.config)
            frames = batch.images.shape[0] * batch.images.shape[1]
            yield Progress(self.step, loss, terms, rate, frames, done - started, ready - started)
            started = time.perf_counter()

    def _update(self, batch: ClipBatch, names: tuple[str, ...]) -> tuple[float, dict[str, float]]:
        share = rate_at(self.step, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * share
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss, terms = clip_loss(
                self.tracker, batch, generator, proposals_only=self.config.proposals_only
            )
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} at step {self.step} on clips {', '.join(names)}; "
                "the last checkpoint is intact: resume from it with a lower learning rate, "
                "or leave those clips out"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.tracker.parameters(), self.config.clip_gradient)
        self.optimizer.step()
        self.step += 1
        self._update_average()
        return value, terms

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

    def save(self, path: str | Path) -> None:
        """Write the whole training state to one safetensors file, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Tensor] = {}
        for prefix, state in (("weight", self.tracker.state_dict()), ("average", self.average)):
            tensors |= {f"{prefix}/{k}": v.contiguous() for k, v in state.items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{key}": value for key, value in entry.items()}
        partial = path.with_name(path.name + ".partial")
        save_file(tensors, partial, metadata={"step": json.dumps(self.step)})
        partial.replace(path)

    def resume(self, path: str | Path) -> None:
        """Take up the state that `save` wrote.

        Raises:
            TrainingError: the file belongs to another model or another choice of frozen stages.
        """
        with safe_open(path, framework="pt") as file:
            step = json.loads(file.metadata()["step"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        weights = _under("weight/", tensors)
        optimizer = self.optimizer.state_dict()
        entries: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimizer/", tensors).items():
            index, key = name.split("/")
            entries.setdefault(int(index), {})[key] = value
        sizes = [p.shape for group in self.optimizer.param_groups for p in group["params"]]
        fits = all(
            index < len(sizes) and entry["exp_avg"].shape == sizes[index]
            for index, entry in entries.items()
        )
        try:
            self.tracker.load_state_dict(weights)
        except RuntimeError as error:
            raise TrainingError(
                f"{path}: of another model ({error}); use another folder"
            ) from error
        if not fits:
            raise TrainingError(
                f"{path}: its optimizer trained other parameters; keep frozen_stages, or start "
                "from its weights in a new folder"
            )
        optimizer["state"] = entries
        self.optimizer.load_state_dict(optimizer)
        average = _under("average/", tensors)
        self.average = {name: average[name].to(self.device) for name in self.average}
        self.step = step


def train(
    trainer: Trainer,
    batches: Iterable[ClipBatch],
    folder: str | Path,
    watch: Callable[[Progress], None],
) -> None:
    """Run to the last step, writing `folder/state.safetensors` every so often and at the end."""
    path = Path(folder) / "state.safetensors"
    for progress in trainer.run(batches):
        watch(progress)
        if trainer.step % trainer.config.checkpoint_every == 0:
            trainer.save(path)
        if trainer.step >= trainer.config.steps:
            break
    trainer.save(path)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _optimizer(tracker: Tracker, config: TrainingConfig) -> torch.optim.Optimizer:
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in tracker.named_parameters():
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
