"""Train a tracker, in this process or on the workers of a Ray cluster.

A job describes its training in a `TrainingTask` and calls `fit`:

    fit(TrainingTask(config, build, stream, finish, output), cluster, worker, on_progress)

- `build(device, communicator)` makes the trainer with its objective. It is called on every worker
  and must make the same weights on each.
- `stream()` opens the items to train on. Item i depends on i alone. Step s consists of items
  s * batch to (s + 1) * batch, and each of n workers gets 1/n of them. Steps may have several
  sizes in turn, see `TrainingTask.sizes`.

So a step has the same items for any number of workers. A run that is resumed after a failure, or
with another number of workers, continues the same loss curve.

This module does not import Ray, so training also runs on a machine without it. `on_ray` does.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from model.communicator import Communicator
from model.learn.training import Progress, TrainingError
from model.settings import flat
from pipeline.runtime.settings import ClusterConfig, MlflowConfig
from pipeline.training.batches import batches
from pipeline.training.config import WorkerConfig
from pipeline.training.log import TrainingLog, open_mlflow
from pipeline.training.run_folder import STATE, RunFolder
from pipeline.training.worker import DONE, Score, Snapshot, TrainingTask, train_on_worker


def fit(
    task: TrainingTask,
    cluster: ClusterConfig,
    worker: WorkerConfig,
    on_progress: Callable[[Progress], None],
    on_snapshot: Callable[[int, Snapshot], None] | None = None,
    on_score: Callable[[Score], None] | None = None,
) -> None:
    """Train to the end of the budget; a state in the output is resumed.

    All callbacks are called in this process.

    Args:
        task: the training.
        cluster: where it runs.
        worker: resources of each worker.
        on_progress: called after each step. Steps that are repeated after a failure are reported
            again.
        on_snapshot: called with step and snapshot.
        on_score: called with the score.

    Raises:
        TrainingError: the loss is not finite (the last checkpoint is intact), the state is of
            another model, the minutes are used up, the batch cannot be divided among the workers,
            the cluster has no room for the workers, or workers failed too often.
    """
    _check_budget(task)
    if cluster.workers != 0:
        from pipeline.training.on_ray import fit_on_ray

        fit_on_ray(task, cluster, worker, on_progress, on_snapshot, on_score)
        return
    if worker.threads:
        torch.set_num_threads(worker.threads)
    device: str = worker.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"

    def batches_from(first_step: int) -> Iterable[Any]:
        c = task.config
        pin = device == "cuda"
        return batches(task.stream(), task.sizes, first_step, c.steps, worker.loaders, pin=pin)

    train_on_worker(
        task,
        torch.device(device),
        Communicator(),
        batches_from,
        on_progress,
        on_snapshot=on_snapshot,
        on_score=on_score,
    )


def fit_logged(
    task: TrainingTask,
    cluster: ClusterConfig,
    worker: WorkerConfig,
    mlflow: MlflowConfig,
    *,
    settings: Mapping[str, Any],
    on_progress: Callable[[Progress], None],
    warn: Callable[[str], None],
) -> dict[str, float]:
    """Train as `fit` does, and log to `log.jsonl` in the output and, if enabled, to MLflow.

    Args:
        task, cluster, worker, on_progress: see `fit`.
        mlflow: settings of MLflow.
        settings: settings of the job for MLflow, nested.
        warn: called once if MLflow cannot be reached.

    Returns:
        figures of the score at the end; empty without a score.

    Raises:
        TrainingError: see `fit`.
        StorageError: the output cannot be reached.
    """
    run = open_mlflow(mlflow.uri, mlflow.experiment, warn) if mlflow.enabled else None
    with TrainingLog(RunFolder(task.output), run, flat(settings)) as log:
        figures: dict[str, float] = {}

        def log_progress(progress: Progress) -> None:
            log.add_step(progress)
            on_progress(progress)

        def log_score(score: Score) -> None:
            log.add_score(score)
            figures.update(score.figures)

        fit(task, cluster, worker, log_progress, log.add_snapshot if run else None, log_score)
        return figures


def _check_budget(task: TrainingTask) -> None:
    """Refuse a training whose minutes are used up and whose weights are written."""
    folder, minutes = RunFolder(task.output), task.config.minutes
    found = folder.read(DONE) if minutes and folder.exists(STATE) else None
    if found is None:
        return
    done = json.loads(found)
    if done["seconds"] >= 60 * minutes:
        raise TrainingError(
            f"{task.output}: its budget is used up: {done['seconds'] / 60:.1f} of "
            f"training.minutes={minutes:g}, in {done['step']} steps, and its weights are written; "
            "give a larger training.minutes, which counts the whole training, or another output"
        )
