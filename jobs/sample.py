"""Make a small archive to try things on: `python -m jobs.sample output=runs/sample-archive`."""

import sys
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from jobs.cli import EXIT_DONE, EXIT_FAILED, JobConfig, console, fail, load_config
from pipeline.datasets.sample import SampleError, write_sample
from pipeline.storage.files import StorageError


class SampleConfig(JobConfig):
    """Settings of `jobs.sample`."""

    job: ClassVar[str] = "sample"
    about: ClassVar[str] = "Put four real clips and one broken file into a folder."

    output: str = Field(
        "runs/sample-archive", min_length=1, description="folder or URL for the files"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(SampleConfig, argv)
    try:
        names = write_sample(config.output)
    except (SampleError, StorageError) as error:
        fail(str(error), EXIT_FAILED)
    console.print(
        f"sample archive in {config.output}: {', '.join(names)}", soft_wrap=True, highlight=False
    )
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
