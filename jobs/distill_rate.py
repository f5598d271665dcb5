"""Measure images per second of distillation: `python -m jobs.distill_rate input=…`."""

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, ClassVar

from rich.table import Table

from jobs.cli import EXIT_DONE, EXIT_FAILED, console, fail, load_config, print_config
from jobs.distill import run
from model.learn.training import Progress, TrainingError
from model.learn.training_config import TrainingConfig
from model.settings import NotEmpty, Range, check
from pipeline.runtime.settings import ClusterConfig, MlflowConfig
from pipeline.storage.files import StorageError, write_atomic
from pipeline.training.config import WorkerConfig
from pipeline.training.distill_job import DistillJob

_UNMEASURED = 3  # first steps, which are slow: kernels are chosen, files are opened


@dataclass(frozen=True, slots=True)
class RateConfig:
    """Settings of `jobs.distill_rate`.

    Attributes:
        input: archive of videos: a folder, a file or a URL.
        output: folder or URL for rate.json.
        compare: numbers of workers to measure; 0 is this process without Ray.
        steps: steps of each run.
        batch: frames of each worker in a step.
        loaders: processes beside each worker that read frames.
        threads: CPU threads of each worker.
    """

    job: ClassVar[str] = "distill_rate"
    about: ClassVar[str] = "Measure images per second of distillation, with Ray and without."

    input: Annotated[str, NotEmpty()]
    output: Annotated[str, NotEmpty()] = "runs/distill-rate"
    compare: tuple[Annotated[int, Range(0)], ...] = (0, 1, 2)
    steps: Annotated[int, Range(5)] = 20
    batch: Annotated[int, Range(1)] = 8
    loaders: Annotated[int, Range(0)] = 1
    threads: Annotated[int, Range(1)] = 1

    def __post_init__(self) -> None:
        check(self)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(RateConfig, argv)
    print_config(console, config)
    try:
        rates = {n: images_per_second(config, n) for n in config.compare}
    except (TrainingError, StorageError, ValueError) as error:
        fail(str(error), EXIT_FAILED)
    bare = rates.get(0)
    table = Table("workers", "images/s", "each worker, relative to 0 workers", pad_edge=False)
    for workers, rate in rates.items():
        share = f"{rate / max(1, workers) / bare:.2f}" if bare else ""
        table.add_row(str(workers), f"{rate:.2f}", share)
    console.print(table)
    record = {"config": asdict(config), "images_per_second": rates}
    write_atomic(f"{config.output}/rate.json", (json.dumps(record, indent=2) + "\n").encode())
    return EXIT_DONE


def images_per_second(config: RateConfig, workers: int) -> float:
    """Images per second of one run: frames of a step divided by the median time of a step.

    Args:
        config: settings.
        workers: number of workers.

    Raises:
        The errors of `jobs.distill.run`.
    """
    steps: list[Progress] = []
    with tempfile.TemporaryDirectory() as folder:  # a new run each time
        job = DistillJob(
            input=config.input,
            output=folder,
            training=TrainingConfig(
                steps=config.steps,
                batch=config.batch * max(1, workers),
                checkpoint_every=config.steps,
            ),
            cluster=ClusterConfig(workers=workers),
            worker=WorkerConfig(config.threads, config.loaders, device="cpu"),
            mlflow=MlflowConfig(enabled=False),
        )
        run(job, steps.append)
    measured = steps[_UNMEASURED:]
    return measured[0].frames / statistics.median(p.seconds for p in measured)


if __name__ == "__main__":
    sys.exit(main())
