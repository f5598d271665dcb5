"""The folders of this machine that a run writes to: the temporary one, and that of graphs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from pipeline.doctor.config import DoctorConfig
from pipeline.doctor.finding import Finding, ok, problem, warning
from pipeline.doctor.stores import existing, space
from pipeline.inference.graph_cache import cache_folder

_PROBE_BYTES = 1 << 20


def check_folders(config: DoctorConfig) -> Iterable[Finding]:
    """Write to the temporary folder and to that of compiled graphs."""
    yield temporary_folder()
    yield graph_folder(cache_folder())


def temporary_folder() -> Finding:
    """Whether rows of a video can wait in the temporary folder, and how much room it has."""
    name, remedy = "temporary folder", "set TMPDIR to a folder on another disk"
    try:
        folder = Path(tempfile.gettempdir())
        with tempfile.TemporaryFile() as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
    except OSError as error:
        return problem(name, f"it cannot be written: {error.strerror or error}", remedy)
    return space(name, folder, remedy)


def graph_folder(folder: Path) -> Finding:
    """Whether compiled graphs can be kept."""
    name = "graphs"
    there = existing(folder)
    try:
        with tempfile.NamedTemporaryFile(dir=there) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
    except OSError as error:
        return warning(
            name,
            f"{there} cannot be written ({error.strerror or error}), so that each process converts "
            "the model anew",
            "set XDG_CACHE_HOME to a folder that can be written",
        )
    return ok(name, f"can be kept in {folder}")
