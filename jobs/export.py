"""Export a run of jobs.track: ``python -m jobs.export format=motchallenge input=RUN output=DIR``.

Exit codes: 0 done; 1 there is nothing to export; 2 a bad setting.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from jobs.cli import EXIT_DONE, EXIT_FAILED, JobConfig, console, fail, load_config, print_config


class ExportConfig(JobConfig):
    """Settings of `jobs.export`."""

    job: ClassVar[str] = "export"
    about: ClassVar[str] = "Write the tracks of a run in another format."

    format: Literal["motchallenge"] = Field(
        "motchallenge", description="one SEQUENCE.txt a video, and all of them in motchallenge.zip"
    )
    input: str = Field(min_length=1, description="a run's folder or URL: what jobs.track wrote to")
    output: str = Field(min_length=1, description="folder or URL for the files")
    class_name: str = Field("person", description="the class that is exported")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(ExportConfig, argv)
    print_config(console, config)
    from pipeline.formats import ExportError, motchallenge_files, run_tracks, zipped
    from pipeline.storage import StorageError, write_atomic

    try:
        files = motchallenge_files(run_tracks(config.input.rstrip("/"), config.class_name))
        output = config.output.rstrip("/")
        for name, content in files.items():
            write_atomic(f"{output}/{name}", content)
        write_atomic(f"{output}/motchallenge.zip", zipped(files))
    except (ExportError, StorageError) as error:
        fail(str(error), EXIT_FAILED)
    console.print(
        f"{len(files)} result files and motchallenge.zip in {output}", soft_wrap=True, markup=False
    )
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
