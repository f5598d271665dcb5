"""Train a student on labelled shards: `python -m jobs.train output=…`.

With `--resolved FILE` the job takes a resolved config as `config.json` of a run holds it, and
then imports nothing but PyTorch, torchvision, timm, numpy, Pillow, OpenCV, SciPy and safetensors:
that is how it runs on a bare GPU machine.
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from jobs.train_job import TrainJob, claim, fit_of, weights_path
from jobs.training_run import fit_logged
from model.allocator import keep_large_blocks
from model.learn.training import Progress, TrainingError
from pipeline.datasets.shards import Shards
from pipeline.training.run_folder import RunFolder

_EVERY_S = 5.0
_EXIT_BAD_CONFIG = 2  # as in `jobs.cli`, which the bare path may not import
_USAGE = "--resolved takes one file, the config.json of a run: --resolved OUTPUT/config.json"


def main(argv: list[str]) -> int:
    """Run the job; returns the exit code."""
    if argv[:1] == ["--resolved"]:
        if len(argv) != 2:
            print(f"error: {_USAGE}", file=sys.stderr)
            return _EXIT_BAD_CONFIG
        try:
            job = TrainJob.from_dict(json.loads(Path(argv[1]).read_text()))
        except (OSError, ValueError) as error:
            print(f"error: {argv[1]}: {error}; {_USAGE}", file=sys.stderr)
            return _EXIT_BAD_CONFIG
        # A bare machine has no MLflow.
        job = replace(job, mlflow=replace(job.mlflow, enabled=False))
        return _run(job, nullcontext(line_printer()), ())
    from jobs.train_command import read_job
    from jobs.training_progress import progress_bar
    from pipeline.storage.files import StorageError

    job = read_job(argv)
    return _run(job, progress_bar(job.training), (StorageError,))


def _run(job: TrainJob, watching: Any, more: tuple[type[Exception], ...]) -> int:
    expected: tuple[type[Exception], ...] = (TrainingError, ValueError, *more)
    try:
        with watching as watch:
            path = run(job, watch)
    except expected as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on from {job.output}", file=sys.stderr)
        return 130
    print(f"weights: {path}")
    return 0


def run(job: TrainJob, watch: Callable[[Progress], None]) -> str:
    """Train to the end of the budget, from the last checkpoint if there is one; print its score.

    Returns:
        where the weights are.

    Raises:
        TrainingError: see `fit`.
        ValueError: the shards or the weights to start from cannot be used, or the output holds
            another run.
        StorageError: the output cannot be reached.
    """
    keep_large_blocks()
    what = fit_of(job, Shards(job.shards))
    claim(RunFolder(job.output), job)
    figures = fit_logged(what, job.cluster, job.mlflow, asdict(job), watch, _warn)
    for name, value in figures.items():
        print(f"{name}: {value:g}")
    return weights_path(job)


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def line_printer() -> Callable[[Progress], None]:
    """Say how it goes without a terminal: a line every few seconds of training."""
    since: list[Progress] = []

    def watch(progress: Progress) -> None:
        for line in progress.problems:
            print(f"left out: {line}", flush=True)
        since.append(progress)
        seconds = sum(p.seconds for p in since)
        if seconds < _EVERY_S and progress.budget_used < 1:
            return
        terms = "  ".join(f"{name} {value:.3f}" for name, value in progress.terms.items())
        rate = sum(p.frames for p in since) / max(1e-9, seconds)
        waited = sum(p.data_seconds for p in since) / max(1e-9, seconds)
        since.clear()
        print(
            f"{time.strftime('%H:%M:%S')} {progress.budget_used:.1%} step {progress.step} "
            f"loss {progress.loss:.3f}  {terms}  {rate:.1f} frames/s, {waited:.0%} waiting",
            flush=True,
        )

    return watch


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
