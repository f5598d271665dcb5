"""The command line of `jobs.train`, kept apart because the bare path may not import it."""

from typing import ClassVar

from rich.console import Console

from jobs.cli import EXIT_BAD_CONFIG, JobConfig, fail, load_config, print_config
from jobs.settings import settings_model
from jobs.train_job import TrainJob


class _TrainConfig(JobConfig):
    job: ClassVar[str] = "train"
    about: ClassVar[str] = "Train a student on labelled shards."


def read_job(argv: list[str]) -> TrainJob:
    """The job of a command line; exits with 0 after `--help`, with 2 on a bad setting."""
    config = load_config(settings_model(TrainJob, _TrainConfig), argv)
    print_config(Console(), config)
    try:
        return TrainJob.from_dict(config.model_dump())
    except ValueError as error:
        fail(f"train: {error}", EXIT_BAD_CONFIG)
