"""Images a second of distillation: `python -m jobs.distill_rate input=… compare=[0,1,2]`."""

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

_UNMEASURED = 3  # first steps: kernels are chosen, files opened, loaders run ahead


@dataclass(frozen=True, slots=True)
class RateConfig:
    """Settings of `jobs.distill_rate`.

    Attributes:
        input: archive of videos: a folder, a file or a URL.
        output: folder or URL for rate.json.
        compare: numbers of workers; 0 is the bare loop.
        steps: steps of each run.
        batch: frames of each worker's step.
        loaders: processes beside each worker that read frames.
        threads: CPU threads of each worker.
    """

    job: ClassVar[str] = "distill_rate"
    about: ClassVar[str] = "Measure distillation's images a second, with Ray and without."

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
    table = Table("workers", "images/s", "a worker, of the bare loop", pad_edge=False)
    for workers, rate in rates.items():
        share = f"{rate / max(1, workers) / bare:.2f}" if bare else ""
        table.add_row(str(workers), f"{rate:.2f}", share)
    console.print(table)
    record = {"config": asdict(config), "images_per_second": rates}
    write_atomic(f"{config.output}/rate.json", (json.dumps(record, indent=2) + "\n").encode())
    return EXIT_DONE


def images_per_second(config: RateConfig, workers: int) -> float:
    """Of one run with so many workers: frames of a step over the median time of one.

    Raises:
        What `jobs.distill.run` does.
    """
    seen: list[Progress] = []
    with tempfile.TemporaryDirectory() as folder:  # a run of its own: a finished one goes nowhere
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
        run(job, seen.append)
    measured = seen[_UNMEASURED:]
    return measured[0].frames / statistics.median(p.seconds for p in measured)


if __name__ == "__main__":
    sys.exit(main())
