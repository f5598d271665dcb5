"""Make a folder from which a machine with a GPU can train: `vsdmot kit SHARDS runs/kit`.

Exit codes: 0 done; 1 the kit cannot be made; 2 a bad setting.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.cli import EXIT_DONE, EXIT_FAILED, console, fail, load_config, print_config
from pipeline.kit.kit_job import KitJob


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    job = load_config(KitJob, argv)
    print_config(console, job)
    # Imported after the settings are checked, because torch takes seconds to import.
    from pipeline.kit.folder import calls
    from pipeline.kit.making import make_kit

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
