"""Train a student on labelled shards: `vsdmot train SHARDS OUTPUT`.

With `--resolved FILE` the job reads all settings from a file such as `config.json` of a run. It
then imports only PyTorch, torchvision, timm, numpy, Pillow, OpenCV, SciPy and safetensors, so it
also runs on a machine that has no other packages.

Exit codes: 0 done; 1 failed; 2 a bad setting; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.settings import build
from pipeline.training.train_job import TrainJob

if TYPE_CHECKING:
    from model.learn.training import Progress

_EXIT_BAD_CONFIG = 2  # as in `jobs.cli`, which --resolved may not import
_USAGE = "give one file with --resolved, the config.json of a run: --resolved OUTPUT/config.json"


def main(argv: list[str]) -> int:
    """Run the job; returns the exit code."""
    if argv[:1] == ["--resolved"]:
        if len(argv) != 2:
            print(f"error: {_USAGE}", file=sys.stderr)
            return _EXIT_BAD_CONFIG
        try:
            job = build(TrainJob, json.loads(Path(argv[1]).read_text()))
        except (OSError, ValueError) as error:
            print(f"error: {argv[1]}: {error}; {_USAGE}", file=sys.stderr)
            return _EXIT_BAD_CONFIG
        from pipeline.training.progress import line_printer

        # The machine may not have MLflow.
        job = replace(job, mlflow=replace(job.mlflow, enabled=False))
        return _train(job, nullcontext(line_printer()), ())
    from jobs.cli import console, load_config, print_config

    job = load_config(TrainJob, argv)
    print_config(console, job)
    # Imported after the settings are checked, because torch takes seconds to import.
    from pipeline.storage.errors import StorageError
    from pipeline.training.progress import progress_bar

    return _train(job, progress_bar(job.training), (StorageError,))


def _train(job: TrainJob, display: Any, more: tuple[type[Exception], ...]) -> int:
    """Run with a display; print the result or the error; return the exit code.

    Args:
        job: settings.
        display: context manager that gives the function to call after each step.
        more: further types of errors that are printed without a traceback.
    """
    from model.learn.training import TrainingError

    expected: tuple[type[Exception], ...] = (TrainingError, ValueError, *more)
    try:
        with display as on_progress:
            path = run(job, on_progress)
    except expected as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; the same command resumes the run in {job.output}", file=sys.stderr)
        return 130
    print(f"weights: {path}")
    return 0


def run(job: TrainJob, on_progress: Callable[[Progress], None]) -> str:
    """Train to the end of the budget and print the score; a checkpoint in the output is resumed.

    Args:
        job: settings.
        on_progress: called after each step.

    Returns:
        path or URL of the weights.

    Raises:
        TrainingError: see `fit`.
        ValueError: the shards or the start weights cannot be used, or the output holds a run with
            other settings.
        StorageError: the output cannot be reached.
    """
    from model.allocator import keep_large_blocks
    from pipeline.datasets.shards import Shards
    from pipeline.training.fit import fit_logged
    from pipeline.training.run_folder import RunFolder
    from pipeline.training.train_parts import claim, training_task, weights_path

    keep_large_blocks()
    task = training_task(job, Shards(job.shards))
    claim(RunFolder(job.output), job)
    figures = fit_logged(
        task,
        job.cluster,
        job.worker,
        job.mlflow,
        settings=asdict(job),
        on_progress=on_progress,
        warn=_warn,
    )
    for name, value in figures.items():
        print(f"{name}: {value:g}")
    return weights_path(job)


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
