"""Train a student on labelled shards: `python -m jobs.train output=…`.

With `--resolved FILE` the job takes a resolved config as `config.json` of a run holds it, and
then imports nothing but PyTorch, torchvision, timm, numpy, Pillow and safetensors: that is how it
runs on a bare GPU machine.
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
from model.training import Progress, TrainingError
from pipeline.run_folder import RunFolder
from pipeline.shards import Shards


def main(argv: list[str]) -> int:
    """Run the job; returns the exit code."""
    if argv[:1] == ["--resolved"]:
        job = TrainJob.from_dict(json.loads(Path(argv[1]).read_text()))
        # A bare machine has no MLflow.
        job = replace(job, mlflow=replace(job.mlflow, enabled=False))
        return _run(job, nullcontext(_print_line), ())
    from jobs.train_command import read_job
    from jobs.training_progress import progress_bar
    from pipeline.storage import StorageError

    job = read_job(argv)
    return _run(job, progress_bar(job.training.steps), (StorageError,))


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
    """Train to the last step, from the last checkpoint if there is one; returns the weights.

    Raises:
        TrainingError: see `fit`.
        ValueError: the shards or the weights to start from cannot be used, or the output holds
            another run.
        StorageError: the output cannot be reached.
    """
    keep_large_blocks()
    shards = Shards(job.shards)
    claim(RunFolder(job.output), job)
    fit_logged(fit_of(job, shards), job.cluster, job.mlflow, asdict(job), watch, _warn)
    return weights_path(job)


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _print_line(progress: Progress) -> None:
    """Say how it goes without a terminal: every tenth step a line."""
    if progress.step % 10 == 0:
        terms = "  ".join(f"{name} {value:.3f}" for name, value in progress.terms.items())
        rate = progress.frames / max(1e-9, progress.seconds)
        stamp = time.strftime("%H:%M:%S")
        done = f"{stamp} step {progress.step} loss {progress.loss:.3f}"
        print(f"{done}  {terms}  {rate:.1f} frames/s", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
