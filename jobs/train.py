"""Train a student on labelled shards: `vsdmot train SHARDS OUTPUT`.

With `--resolved FILE` the job takes a resolved config as `config.json` of a run holds it, and
then imports nothing but PyTorch, torchvision, timm, numpy, Pillow, OpenCV, SciPy and safetensors:
that is how it runs on a bare GPU machine.
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

_EXIT_BAD_CONFIG = 2  # as in `jobs.cli`, which the bare path may not import
_USAGE = "--resolved takes one file, the config.json of a run: --resolved OUTPUT/config.json"


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

        # A bare machine has no MLflow.
        job = replace(job, mlflow=replace(job.mlflow, enabled=False))
        return _run(job, nullcontext(line_printer()), ())
    from jobs.cli import console, load_config, print_config

    job = load_config(TrainJob, argv)
    print_config(console, job)
    # After the settings: torch takes seconds to import, and a spelling mistake should not.
    from pipeline.storage.errors import StorageError
    from pipeline.training.progress import progress_bar

    return _run(job, progress_bar(job.training), (StorageError,))


def _run(job: TrainJob, watching: Any, more: tuple[type[Exception], ...]) -> int:
    from model.learn.training import TrainingError

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
    from model.allocator import keep_large_blocks
    from pipeline.datasets.shards import Shards
    from pipeline.training.fit import fit_logged
    from pipeline.training.run_folder import RunFolder
    from pipeline.training.train_parts import claim, fit_of, weights_path

    keep_large_blocks()
    what = fit_of(job, Shards(job.shards))
    claim(RunFolder(job.output), job)
    figures = fit_logged(what, job.cluster, job.worker, job.mlflow, asdict(job), watch, _warn)
    for name, value in figures.items():
        print(f"{name}: {value:g}")
    return weights_path(job)


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
