"""Images a second of distillation: `python -m jobs.distill_rate input=… compare=[0,1,2]`."""

import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field
from rich.table import Table

from jobs.cli import EXIT_DONE, EXIT_FAILED, JobConfig, console, fail, load_config, print_config
from jobs.distill import run
from jobs.distill_job import DistillJob
from jobs.training_run import MlflowSettings
from model.learn.training import Progress, TrainingError
from model.learn.training_config import TrainingConfig
from pipeline.storage.files import StorageError, write_atomic
from pipeline.training.work import ClusterSettings

_UNMEASURED = 3  # first steps: kernels are chosen, files opened, loaders run ahead


class RateConfig(JobConfig):
    """Settings of `jobs.distill_rate`."""

    job: ClassVar[str] = "distill_rate"
    about: ClassVar[str] = "Measure distillation's images a second, with Ray and without."

    input: str = Field(min_length=1, description="archive of videos: a folder, a file or a URL")
    output: str = Field(
        "runs/distill-rate", min_length=1, description="folder or URL for rate.json"
    )
    compare: list[int] = Field(
        default_factory=lambda: [0, 1, 2], description="numbers of workers; 0 is the bare loop"
    )
    steps: int = Field(20, ge=5, description="steps of each run")
    batch: int = Field(8, ge=1, description="frames of each worker's step")
    loaders: int = Field(1, ge=0, description="processes beside each worker that read frames")
    threads: int = Field(1, ge=1, description="CPU threads of each worker")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(RateConfig, argv)
    print_config(console, config)
    try:
        rates = {n: images_per_second(config, n) for n in config.compare}
    except (TrainingError, StorageError, ValueError) as error:
        fail(str(error), EXIT_FAILED)
    bare = rates.get(0)
    table = Table("workers", "images/s", "a worker, of the bare loop", pad_edge=False)
    for workers, rate in rates.items():
        share = f"{rate / max(1, workers) / bare:.2f}" if bare else ""
        table.add_row(str(workers), f"{rate:.2f}", share)
    console.print(table)
    record = {"config": config.model_dump(mode="json"), "images_per_second": rates}
    write_atomic(f"{config.output}/rate.json", (json.dumps(record, indent=2) + "\n").encode())
    return EXIT_DONE


def images_per_second(config: RateConfig, workers: int) -> float:
    """Of one run with so many workers: frames of a step over the median time of one.

    Raises:
        What `jobs.distill.run` does.
    """
    seen: list[Progress] = []
    cluster = ClusterSettings(
        workers=workers, threads=config.threads, loaders=config.loaders, device="cpu"
    )
    with tempfile.TemporaryDirectory() as folder:  # a run of its own: a finished one goes nowhere
        job = DistillJob(
            input=config.input,
            output=folder,
            training=TrainingConfig(
                steps=config.steps,
                batch=config.batch * max(1, workers),
                checkpoint_every=config.steps,
            ),
            cluster=cluster,
            mlflow=MlflowSettings(enabled=False),
        )
        run(job, seen.append)
    measured = seen[_UNMEASURED:]
    return measured[0].frames / statistics.median(p.seconds for p in measured)


if __name__ == "__main__":
    sys.exit(main())
