"""The one command of a speed kit on the GPU machine: `python3 run.py --minutes 4.5`.

It imports only the standard library until it has checked that the other packages are installed.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from pipeline.kit.run import failed, parse_minutes, unfit_machine

_MINUTES = 4.5  # for all measures on one GPU


def main(argv: list[str], folder: Path, started: float) -> int:
    """Run the command; returns the exit code.

    Args:
        argv: arguments of the command.
        folder: folder of the kit.
        started: start time of the command, by `time.monotonic`.
    """
    minutes = parse_minutes(argv, "Measure the speed of tracking.", _MINUTES)
    problem = unfit_machine()
    if problem:
        return failed(problem)
    from pipeline.kit.gpu_speed import measure
    from pipeline.kit.gpu_table import table

    out = Path(os.environ.get("OUT") or folder / "out")
    out.mkdir(parents=True, exist_ok=True)

    def save(figures: dict[str, Any]) -> None:
        (out / "gpu-speed.json").write_text(json.dumps(figures, indent=1) + "\n")

    try:
        figures = measure(folder, started + 60 * minutes, save)
    except ValueError as error:
        return failed(str(error))
    print(table(figures))
    print(f"done after {(time.monotonic() - started) / 60:.2f} minutes: {out / 'gpu-speed.json'}")
    return 0
