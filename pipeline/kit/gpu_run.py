"""The one command of a speed kit on the GPU machine: `python3 run.py --minutes 4.5`.

It imports only the standard library until it has checked that the other packages are installed.
"""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

from pipeline.kit.run import unfit_machine


def main(argv: list[str], folder: Path, started: float) -> int:
    """Run the command; returns the exit code.

    Args:
        argv: arguments of the command.
        folder: folder of the kit.
        started: start time of the command, by `time.monotonic`.
    """
    parser = argparse.ArgumentParser(prog="run.py", description="Measure the speed of tracking.")
    parser.add_argument(
        "--minutes", type=float, default=4.5, help="time of the whole command, in minutes"
    )
    minutes: float = parser.parse_args(argv).minutes
    if not 0 < minutes < math.inf:
        parser.error(f"--minutes must be a positive number, but {minutes} was given")
    problem = unfit_machine()
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    from pipeline.kit.gpu_speed import measure
    from pipeline.kit.gpu_table import table

    out = Path(os.environ.get("OUT") or folder / "out")
    out.mkdir(parents=True, exist_ok=True)

    def save(figures: dict[str, Any]) -> None:
        (out / "gpu-speed.json").write_text(json.dumps(figures, indent=1) + "\n")

    try:
        figures = measure(folder, started + 60 * minutes, save)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(figures))
    print(f"done after {(time.monotonic() - started) / 60:.2f} minutes: {out / 'gpu-speed.json'}")
    return 0
