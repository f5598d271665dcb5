"""The one command on the GPU machine: `python3 run.py --minutes 8` in the first part of a kit.

It imports only the standard library until it has checked that the other packages are installed.
"""

import argparse
import importlib
import math
import os
import re
import sys
import time
from pathlib import Path

_NEEDED = {
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "numpy": "numpy",
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "scipy": "scipy",
    "safetensors": "safetensors",
}
"""Names of distributions, by the name of their module."""
_TORCH = (2, 11)


def main(argv: list[str], folder: Path, started: float) -> int:
    """Run the command; returns the exit code.

    Args:
        argv: arguments of the command.
        folder: folder of the kit.
        started: start time of the command, by `time.monotonic`.
    """
    minutes = parse_minutes(argv, "Train from this kit.")
    problem = unfit_machine()
    if problem:
        return failed(problem)
    from model.learn.training import TrainingError
    from pipeline.kit.stages import run_stages

    out = Path(os.environ.get("OUT") or folder / "out")
    try:
        run_stages(folder, out, started + 60 * minutes)
    except (TrainingError, ValueError) as error:
        return failed(str(error))
    print(f"done after {(time.monotonic() - started) / 60:.2f} minutes; copy back {out}")
    return 0


def parse_minutes(argv: list[str], about: str, default: float | None = None) -> float:
    """The time that the arguments of a command give it, in minutes; ends it if they are bad.

    Args:
        argv: arguments of the command.
        about: what the command does.
        default: time without `--minutes`; None if it has to be given.
    """
    parser = argparse.ArgumentParser(prog="run.py", description=about)
    parser.add_argument(
        "--minutes",
        type=float,
        default=default,
        required=default is None,
        help="time of the whole command, in minutes",
    )
    minutes: float = parser.parse_args(argv).minutes
    if not 0 < minutes < math.inf:
        parser.error(f"--minutes must be a positive number, but {minutes} was given")
    return minutes


def unfit_machine() -> str:
    """Return why this machine cannot train, and the remedy; "" if it can. Prints versions."""
    found, missing = {}, []
    for name, distribution in _NEEDED.items():
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            missing.append(f"{distribution} ({error})")
        else:
            found[name] = str(getattr(module, "__version__", "of unknown version"))
    print(", ".join(f"{name} {version}" for name, version in found.items()), flush=True)
    if missing:
        return (
            f"this machine lacks {'; '.join(missing)}: install it, or without a network copy its "
            "wheel to the machine and add it to PYTHONPATH"
        )
    version = tuple(int(n) for n in re.findall(r"\d+", found["torch"])[:2])
    if version < _TORCH:
        least = ".".join(map(str, _TORCH))
        return f"torch {found['torch']} is too old: this code needs {least} or newer"
    return ""


def failed(message: str) -> int:
    """Print an error; returns the exit code."""
    print(f"error: {message}", file=sys.stderr)
    return 1
