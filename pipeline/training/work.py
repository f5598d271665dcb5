"""One worker's part of a training, and what a training is made of.

It knows no Ray, so that training runs on a machine that has none.
"""

import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch

from model.communicator import Communicator
from model.learn.training import Progress, Trainer, TrainingError, train
from model.learn.training_config import TrainingConfig
from model.track.tracker import Tracker
from pipeline.training.batches import Stream
from pipeline.training.run_folder import RECENT, STATE, RunFolder

DONE = "done.json"
"""How far a training was when its weights were written, and their score."""

_log = logging.getLogger(__name__)


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


def work(
    what: Fit,
    device: torch.device,
    communicator: Communicator,
    batches_from: Callable[[int], Iterable[Any]],
    watch: Callable[[Progress], None],
    *,
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
