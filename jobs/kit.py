"""A folder that a bare GPU machine trains from: `python -m jobs.kit output=runs/kit`.

Exit codes: 0 done; 1 it cannot be made; 2 a bad setting.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from jobs.cli import (
    EXIT_BAD_CONFIG,
    EXIT_DONE,
    EXIT_FAILED,
    JobConfig,
    console,
    fail,
    load_config,
    print_config,
)
from jobs.kit_job import KitJob, make_kit
from jobs.settings import settings_model
from pipeline.kit.folder import calls


class _KitConfig(JobConfig):
    job: ClassVar[str] = "kit"
    about: ClassVar[str] = "Make a folder that a bare GPU machine trains from, in parts to carry."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(settings_model(KitJob, _KitConfig), argv)
    print_config(console, config)
    try:
        job = KitJob.from_dict(config.model_dump())
    except ValueError as error:
        fail(f"kit: {error}", EXIT_BAD_CONFIG)
    try:
        kit = make_kit(job)
    except (ValueError, OSError) as error:
        fail(str(error), EXIT_FAILED)
    text = calls(job.output.rstrip("/"), kit)
    Path(job.output, "CALLS.txt").write_text(text)
    console.print(text, soft_wrap=True, markup=False, highlight=False)
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
