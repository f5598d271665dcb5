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
from collections.abc import Callable, Iterable
from typing import Any

import torch

from model.communicator import Communicator
from model.learn.training import Progress, TrainingError
from pipeline.training.batches import batches
from pipeline.training.run_folder import STATE, RunFolder
from pipeline.training.work import DONE, ClusterSettings, Fit, Look, Score, work


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
        from pipeline.training.on_ray import fit_on_ray

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
