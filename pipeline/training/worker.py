"""The training on one worker, and the task that all workers get.

This module does not import Ray, so training also runs on a machine without it.
"""

import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from model.communicator import Communicator
from model.learn.training import Progress, Trainer, TrainingError, train
from model.learn.training_config import TrainingConfig
from model.track.tracker import Tracker
from pipeline.training.batches import Stream
from pipeline.training.run_folder import RECENT, STATE, RunFolder

DONE = "done.json"
"""Position of the training when the weights were written, and their score."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The tracker in training on one batch.

    Attributes:
        png: picture of its tracks.
        figures: by name.
    """

    png: bytes
    figures: dict[str, float]


@dataclass(frozen=True, slots=True)
class Score:
    """Score of the averaged tracker at the end of a training.

    Attributes:
        step: number of steps done.
        frames: number of frames seen in them.
        figures: by name.
    """

    step: int
    frames: int
    figures: dict[str, float]


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """Everything that a worker needs to train. It can be pickled; its paths are absolute.

    Attributes:
        config: budget, optimizer and schedule.
        build: makes the trainer, given a device and the communicator of the worker.
        stream: opens the items to train on; called in each process that reads items.
        finish: writes the weights, given the trainer and the score's figures. It is called on the
            first worker, after the last step.
        output: folder or URL of the checkpoints; a state in it is resumed.
        make_snapshot: makes a snapshot of the tracker on a batch. It is called on the first
            worker, must not change trainer or batch, and must not communicate.
        snapshot_every: steps between two snapshots.
        score: scores the averaged tracker, on the first worker, after the last step.
        step_sizes: items in a step, over all workers; steps have these sizes in turn. Empty:
            `config.batch` in each.
    """

    config: TrainingConfig
    build: Callable[[torch.device, Communicator], Trainer]
    stream: Callable[[], Stream]
    finish: Callable[[Trainer, dict[str, float]], None]
    output: str
    make_snapshot: Callable[[Trainer, Any], Snapshot] | None = None
    snapshot_every: int = 100
    score: Callable[[Tracker], dict[str, float]] | None = None
    step_sizes: tuple[int, ...] = ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """Items in a step; steps have these sizes in turn."""
        return self.step_sizes or (self.config.batch,)


def train_on_worker(
    task: TrainingTask,
    device: torch.device,
    communicator: Communicator,
    batches_from: Callable[[int], Iterable[Any]],
    on_progress: Callable[[Progress], None],
    *,
    on_snapshot: Callable[[int, Snapshot], None] | None = None,
    on_score: Callable[[Score], None] | None = None,
    on_checkpoint: Callable[[int], None] = lambda step: None,
) -> None:
    """Train on one worker, to the end of the budget.

    Args:
        task: the training.
        device: device of this worker.
        communicator: of this worker with the others.
        batches_from: gives this worker's batches from a step on.
        on_progress: called after each step, on the first worker.
        on_snapshot: called with step and snapshot, on the first worker.
        on_score: called with the score, on the first worker.
        on_checkpoint: called with the step on every worker when its checkpoint is written.

    Raises:
        TrainingError: see `fit`; raised on all workers.
    """
    folder, first = RunFolder(task.output), communicator.rank == 0
    trainer = _open_trainer(task, folder, device, communicator)
    batches = _LastBatch(batches_from(trainer.step))
    # A driver may have missed steps that a checkpoint contains, if it or a worker was killed. It
    # reads them from this file, so a worker that goes on keeps those before it.
    recent = deque(
        _steps_until(folder, trainer.step), maxlen=100 + 2 * task.config.checkpoint_every
    )

    def checkpoint(trainer: Trainer) -> None:
        if first:
            folder.write(RECENT, "".join(f"{json.dumps(asdict(p))}\n" for p in recent).encode())
            folder.write(STATE, trainer.save())
        on_checkpoint(trainer.step)

    def after_step(progress: Progress) -> None:
        if not first:
            return
        recent.append(progress)
        on_progress(progress)
        if on_snapshot and task.make_snapshot and progress.step % task.snapshot_every == 0:
            snapshot = _snapshot(task.make_snapshot, trainer, batches.last)
            if snapshot is not None:
                on_snapshot(progress.step, snapshot)

    train(trainer, batches, checkpoint, after_step)
    if first:
        position, figures = trainer.position, {}
        if task.score is not None:
            figures = task.score(trainer.averaged())
            if on_score is not None:
                on_score(Score(position.step, position.frames, figures))
        task.finish(trainer, figures)
        folder.write(DONE, json.dumps({**asdict(position), "score": figures}).encode())


def _steps_until(folder: RunFolder, last: int) -> list[Progress]:
    """Figures of the last steps that the state of a step contains."""
    lines = (folder.read(RECENT) or b"").splitlines()
    steps = [Progress(**json.loads(line)) for line in lines]
    return [progress for progress in steps if progress.step <= last]


def _open_trainer(
    task: TrainingTask, folder: RunFolder, device: torch.device, communicator: Communicator
) -> Trainer:
    """Build the trainer and resume its state; an error on one worker is raised on all."""
    trainer, problem = None, ""
    try:
        trainer = task.build(device, communicator)
        if (data := folder.read(STATE)) is not None:
            trainer.resume(data, folder.path(STATE))
    except (TrainingError, ValueError) as error:
        problem = str(error)
    steps = communicator.gather_objects((problem, trainer.step if trainer else -1))
    problems = [text for text, _ in steps if text]
    if problems or trainer is None:
        raise TrainingError(problems[0])
    if len({step for _, step in steps}) > 1:
        raise RuntimeError(f"workers read states of different steps, {steps}: try again")
    return trainer


def _snapshot(
    make: Callable[[Trainer, Any], Snapshot], trainer: Trainer, batch: Any
) -> Snapshot | None:
    """Make a snapshot; None if it fails."""
    try:
        return make(trainer, batch)
    except Exception:  # a failed picture must not stop a training
        _log.warning("the snapshot at step %d failed", trainer.step, exc_info=True)
        return None
    finally:
        trainer.tracker.train()


class _LastBatch:
    """Yields batches and keeps the last one."""

    def __init__(self, source: Iterable[Any]) -> None:
        self._source, self.last = source, None

    def __iter__(self) -> Iterator[Any]:
        for self.last in self._source:  # noqa: B020
            yield self.last
