"""Tests stand where the code stands: `tests/pipeline/video` for `pipeline/video`, and so on."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The top of the repository, from which `python -m jobs.NAME` runs."""
_OF_MAKE = ("MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "DATA", "ARGS", "VSDMOT_DATA")


def environment_for_make() -> dict[str, str]:
    """The environment without the variables of a `make test ARGS=…` that runs these tests."""
    return {name: value for name, value in os.environ.items() if name not in _OF_MAKE}
