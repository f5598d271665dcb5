"""Tests stand where the code stands: `tests/pipeline/video` for `pipeline/video`, and so on."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The top of the repository, from which `python -m jobs.NAME` runs."""
