"""Export a run of vsdmot track or of vsdmot eval as files of another format.

``vsdmot export RUN FOLDER``

Exit codes: 0 done; 1 the run cannot be read, or has nothing to export; 2 a bad setting.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from jobs.cli import EXIT_DONE, EXIT_FAILED, console, fail, load_config, print_config
from model.settings import NotEmpty, check


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """Settings of `vsdmot export`.

    Attributes:
        input: folder or URL of a run, the output of vsdmot track or vsdmot eval.
        output: folder or URL for the files.
        format: file format. motchallenge writes one NAME.txt for each video, and all of them in
            motchallenge.zip; for vsdmot eval, into folders TRACKER/CONDITION/seed-N.
        class_name: class whose tracks are exported; only for runs of vsdmot track.
    """

    job: ClassVar[str] = "export"
    about: ClassVar[str] = "Write the tracks of a run in another format."

    input: Annotated[str, NotEmpty()]
    output: Annotated[str, NotEmpty()]
    format: Literal["motchallenge"] = "motchallenge"
    class_name: str = "person"

    def __post_init__(self) -> None:
        check(self)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(ExportConfig, argv)
    print_config(console, config)
    from pipeline.benchmark.export import (
        ExportError,
        benchmark_tracks,
        is_benchmark,
        motchallenge_files,
        run_tracks,
        zipped,
    )
    from pipeline.storage.files import StorageError, write_atomic

    run, output = config.input.rstrip("/"), config.output.rstrip("/")
    count = 0
    try:
        if is_benchmark(run):
            folders = {f"{output}/{k}": tracks for k, tracks in benchmark_tracks(run).items()}
        else:
            folders = {output: run_tracks(run, config.class_name)}
        for folder, tracks in folders.items():
            files = motchallenge_files(tracks)
            for name, content in files.items():
                write_atomic(f"{folder}/{name}", content)
            write_atomic(f"{folder}/motchallenge.zip", zipped(files))
            count += len(files)
    except (ExportError, StorageError) as error:
        fail(str(error), EXIT_FAILED)
    where = output if len(folders) == 1 else f"each of {len(folders)} folders below {output}"
    console.print(
        f"{count} result files, and motchallenge.zip in {where}", soft_wrap=True, markup=False
    )
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
