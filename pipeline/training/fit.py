"""Fit a tracker: in this process, or on the workers of a Ray cluster, with the same loss curve.

A job says what is trained and hands it to `fit`:

    fit(Fit(config, build, stream, finish, output), cluster, worker, watch)

`build(device, communicator)` makes the trainer, with the objective in it; it is called on every
worker, and must make the same weights on each. `stream()` opens what is trained on: item i is a
function of i alone, and step s is made of items s * batch to (s + 1) * batch, of which each of n
workers gets its n-th part. So a step is the same work whoever shares it, and after a failure, or
with more or fewer workers than before, the loss curve goes on as if nothing had been.

This module knows no Ray, so that training runs on a machine that has none; `on_ray` does.
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
from pipeline.training.work import DONE, Fit, Look, Score, work


def fit(
    what: Fit,
    cluster: ClusterConfig,
    worker: WorkerConfig,
    watch: Callable[[Progress], None],
    show: Callable[[int, Look], None] | None = None,
    scored: Callable[[Score], None] | None = None,
) -> None:
    """Train to the end of the budget, from the state in the output if there is one.

    Args:
        what: what is trained.
        cluster: where.
        worker: what each worker has.
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
    if cluster.workers != 0:
        from pipeline.training.on_ray import fit_on_ray

        fit_on_ray(what, cluster, worker, watch, show, scored)
        return
    if worker.threads:
        torch.set_num_threads(worker.threads)
    device: str = worker.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"

    def local_batches(first_step: int) -> Iterable[Any]:
        c = what.config
        pin = device == "cuda"
        return batches(what.stream(), c.batch, first_step, c.steps, worker.loaders, pin=pin)

    work(what, torch.device(device), Communicator(), local_batches, watch, show=show, scored=scored)


def fit_logged(
    what: Fit,
    cluster: ClusterConfig,
    worker: WorkerConfig,
    mlflow: MlflowConfig,
    settings: Mapping[str, Any],
    watch: Callable[[Progress], None],
    warn: Callable[[str], None],
) -> dict[str, float]:
    """`fit`, with `log.jsonl` in the output and, where enabled, MLflow.

    Args:
        what, cluster, worker, watch: see `fit`.
        mlflow: where it is logged.
        settings: of the job, nested, for MLflow.
        warn: told once if MLflow cannot be reached.

    Returns:
        the figures of the score at the end, none without one.

    Raises:
        TrainingError: see `fit`.
        StorageError: the output cannot be reached.
    """
    run = open_mlflow(mlflow.uri, mlflow.experiment, warn) if mlflow.enabled else None
    with TrainingLog(RunFolder(what.output), run, flat(settings)) as log:
        figures: dict[str, float] = {}

        def record(progress: Progress) -> None:
            log.watch(progress)
            watch(progress)

        def scored(score: Score) -> None:
            log.scored(score)
            figures.update(score.figures)

        fit(what, cluster, worker, record, log.show if run else None, scored)
        return figures


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
