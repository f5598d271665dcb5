"""Fit a tracker: in this process, or on the workers of a Ray cluster, with the same loss curve.

A job says what is trained and hands it to `fit`:

    fit(Fit(config, build, stream, finish, output), cluster, watch)

`build(device, communicator)` makes the trainer, with the objective in it; it is called on every
worker, and must make the same weights on each. `stream()` opens what is trained on: item i is a
function of i alone, and step s is made of items s * batch to (s + 1) * batch, of which each of n
workers gets its n-th part. So a step is the same work whoever shares it, and after a failure, or
with more or fewer workers than before, the loss curve goes on as if nothing had been.

This module knows no Ray, so that training runs on a machine that has none; `distributed` does.
"""

import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch

from model.communicator import Communicator
from model.tracker import Tracker
from model.training import Progress, Trainer, TrainingError, train
from model.training_config import TrainingConfig
from pipeline.batches import Stream, batches
from pipeline.run_folder import RECENT, STATE, RunFolder

DONE = "done.json"
"""How far a training was when its weights were written, and their score."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """Where the training runs. None of it changes results.

    Attributes:
        workers: 0 trains in this process, without Ray; n on n workers of a Ray cluster;
            [min, max] on as many as there is room for.
        address: Ray cluster to join, e.g. auto; empty starts one here.
        threads: CPU threads of a worker; 0 takes all cores in this process, 1 on Ray.
        loaders: processes beside each worker that prepare what it trains on.
        device: `auto`, `cpu` or `cuda`.
        max_failures: times that workers or nodes may die before the run gives up; -1 for any.
    """

    workers: int | tuple[int, int] = 0
    address: str = ""
    threads: int = 0
    loaders: int = 1
    device: str = "auto"
    max_failures: int = 8

    def __post_init__(self) -> None:
        low, high = self.workers_range
        if not (0 <= low <= high) or (low == 0 and high > 0):
            raise ValueError(
                "cluster.workers must be 0 (in this process), a number, or [min, max] with min "
                f"of at least 1, got {self.workers}"
            )
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"cluster.device must be auto, cpu or cuda, got {self.device!r}")
        if self.threads < 0 or self.loaders < 0 or self.max_failures < -1:
            raise ValueError("cluster.threads and .loaders may not be negative, .max_failures -1")

    @property
    def workers_range(self) -> tuple[int, int]:
        """Least and greatest number of workers."""
        given = self.workers
        return (given, given) if isinstance(given, int) else (given[0], given[1])


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the tracker in training shows: a PNG, and figures by name."""

    png: bytes
    figures: dict[str, float]


@dataclass(frozen=True, slots=True)
class Score:
    """How good the averaged tracker is at the end of a training.

    Attributes:
        step: steps done. frames: frames seen in them.
        figures: by name.
    """

    step: int
    frames: int
    figures: dict[str, float]


class Inspector(Protocol):
    """Looks at the tracker on a batch. It changes neither; it speaks to no other worker."""

    def __call__(self, trainer: Trainer, batch: Any) -> Look:  # noqa: D102
        ...


@dataclass(frozen=True, slots=True)
class Fit:
    """What is trained. It travels to the workers: all of it can be pickled, paths are absolute.

    Attributes:
        config: steps, batch and the rest, as the trainer has it.
        build: makes the trainer, given a device and how to speak to the other workers.
        stream: opens what is trained on; called wherever items are read.
        finish: called on the first worker after the last step, with the score's figures, to
            write the weights.
        output: folder or URL of checkpoints; a state in it is where training goes on.
        inspector: looks at the tracker every `look_every` steps, on the first worker.
        score: measures the averaged tracker after the last step, on the first worker.
    """

    config: TrainingConfig
    build: Callable[[torch.device, Communicator], Trainer]
    stream: Callable[[], Stream]
    finish: Callable[[Trainer, dict[str, float]], None]
    output: str
    inspector: Inspector | None = None
    look_every: int = 100
    score: Callable[[Tracker], dict[str, float]] | None = None


def fit(
    what: Fit,
    cluster: ClusterSettings,
    watch: Callable[[Progress], None],
    show: Callable[[int, Look], None] | None = None,
    scored: Callable[[Score], None] | None = None,
) -> None:
    """Train to the end of the budget, from the state in the output if there is one.

    Args:
        what: what is trained.
        cluster: where.
        watch: told of every step, in this process. After a failure, steps that have to be done
            again are told of again.
        show: given what the inspector saw, with the step, in this process.
        scored: given the score, in this process.

    Raises:
        TrainingError: the loss is not finite (the last checkpoint is intact), the state is of
            another model, its minutes are used up, the batch cannot be shared, the cluster has no
            room for the workers, or they died too often.
    """
    _check_budget(what)
    if cluster.workers_range[1]:
        from pipeline.distributed import fit_on_ray

        fit_on_ray(what, cluster, watch, show, scored)
        return
    if cluster.threads:
        torch.set_num_threads(cluster.threads)
    device = cluster.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"

    def local_batches(first_step: int) -> Iterable[Any]:
        c = what.config
        pin = device == "cuda"
        return batches(what.stream(), c.batch, first_step, c.steps, cluster.loaders, pin=pin)

    work(what, torch.device(device), Communicator(), local_batches, watch, show, scored)


def work(
    what: Fit,
    device: torch.device,
    communicator: Communicator,
    batches_from: Callable[[int], Iterable[Any]],
    watch: Callable[[Progress], None],
    show: Callable[[int, Look], None] | None = None,
    scored: Callable[[Score], None] | None = None,
    saved: Callable[[int], None] = lambda step: None,
) -> None:
    """One worker's part of a training.

    Args:
        what: what is trained.
        device: where.
        communicator: how to speak to the other workers.
        batches_from: this worker's parts of the batches from a step on.
        watch, show, scored: told on the first worker alone.
        saved: called on every worker when the state of a step is on disk.

    Raises:
        TrainingError: see `fit`; on all workers alike.
    """
    folder, first = RunFolder(what.output), communicator.rank == 0
    trainer = _ready(what, folder, device, communicator)
    seen = _LastSeen(batches_from(trainer.step))
    # A driver that dies has not heard of all that a state holds; its successor reads it here.
    recent: deque[Progress] = deque(maxlen=100 + 2 * what.config.checkpoint_every)

    def checkpoint(trainer: Trainer) -> None:
        if first:
            folder.write(RECENT, "".join(f"{json.dumps(asdict(p))}\n" for p in recent).encode())
            folder.write(STATE, trainer.save())
        saved(trainer.step)

    def told(progress: Progress) -> None:
        if not first:
            return
        recent.append(progress)
        watch(progress)
        if show and what.inspector and progress.step % what.look_every == 0:
            look = _look(what.inspector, trainer, seen.batch)
            if look is not None:
                show(progress.step, look)

    train(trainer, seen, checkpoint, told)
    if first:
        position, figures = trainer.position, {}
        if what.score is not None:
            figures = what.score(trainer.averaged())
            if scored is not None:
                scored(Score(position.step, position.frames, figures))
        what.finish(trainer, figures)
        folder.write(DONE, json.dumps({**asdict(position), "score": figures}).encode())


def _check_budget(what: Fit) -> None:
    """Refuse to begin a training that has used up its minutes and written its weights."""
    folder, minutes = RunFolder(what.output), what.config.minutes
    found = folder.read(DONE) if minutes and folder.exists(STATE) else None
    if found is None:
        return
    done = json.loads(found)
    if done["seconds"] >= 60 * minutes:
        raise TrainingError(
            f"{what.output}: its budget is used up: {done['seconds'] / 60:.1f} of "
            f"training.minutes={minutes:g}, in {done['step']} steps, and its weights are written; "
            "give more minutes in all to go on, or another output"
        )


def _ready(
    what: Fit, folder: RunFolder, device: torch.device, communicator: Communicator
) -> Trainer:
    """The trainer at the step where training goes on; fails on all workers or on none."""
    trainer, problem = None, ""
    try:
        trainer = what.build(device, communicator)
        if (data := folder.read(STATE)) is not None:
            trainer.resume(data, folder.path(STATE))
    except (TrainingError, ValueError) as error:
        problem = str(error)
    steps = communicator.gather_objects((problem, trainer.step if trainer else -1))
    problems = [said for said, _ in steps if said]
    if problems or trainer is None:
        raise TrainingError(problems[0])
    if len({step for _, step in steps}) > 1:
        raise RuntimeError(f"workers read states of different steps, {steps}: try again")
    return trainer


def _look(inspector: Inspector, trainer: Trainer, batch: Any) -> Look | None:
    try:
        return inspector(trainer, batch)
    except Exception:  # a picture that cannot be drawn is no reason to stop a training
        _log.warning("no look at step %d", trainer.step, exc_info=True)
        return None
    finally:
        trainer.tracker.train()


class _LastSeen:
    """Hands on batches and keeps the last one."""

    def __init__(self, source: Iterable[Any]) -> None:
        self._source, self.batch = source, None

    def __iter__(self) -> Iterator[Any]:
        for self.batch in self._source:  # noqa: B020
            yield self.batch
