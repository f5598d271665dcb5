"""Make a small archive of videos for a first try: `vsdmot sample runs/sample-archive`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from jobs.cli import EXIT_DONE, EXIT_FAILED, console, fail, load_config
from model.settings import NotEmpty, check
from pipeline.datasets.sample import SampleError, write_sample
from pipeline.storage.files import StorageError


@dataclass(frozen=True, slots=True)
class SampleConfig:
    """Settings of `vsdmot sample`.

    Attributes:
        output: folder or URL for the videos.
    """

    job: ClassVar[str] = "sample"
    about: ClassVar[str] = "Put three real clips of people and one broken file into a folder."

    output: Annotated[str, NotEmpty()] = "runs/sample-archive"

    def __post_init__(self) -> None:
        check(self)


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
