"""The folder of a training run, on a local disk or in a bucket.

A local folder needs only Python, so training also runs on a machine without fsspec. URLs use
`pipeline.storage.files`.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from model.settings import differences, flat

STATE = "state.safetensors"
RECENT = "recent.jsonl"
"""Figures of the last steps, which the first worker writes before each state."""
_CONFIG = "config.json"
_TEACHER = "teacher.txt"


class RunFolderError(ValueError):
    """The folder holds a run with other settings; the message names them."""


class RunFolder:
    """Files of a run by name. Writes are atomic: a file is the new one or the old one.

    Args:
        uri: folder or URL.
    """

    def __init__(self, uri: str) -> None:
        self.remote = "://" in uri
        self.uri = uri.rstrip("/") if self.remote else str(Path(uri).absolute())

    def path(self, name: str) -> str:
        """Path or URL of a file."""
        return f"{self.uri}/{name}"

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if it is missing."""
        if self.remote:
            from pipeline.storage import files as storage

            return storage.read_bytes(self.path(name)) if storage.exists(self.path(name)) else None
        path = Path(self.path(name))
        return path.read_bytes() if path.exists() else None

    def write(self, name: str, data: bytes) -> None:
        """Write a file; an existing one is replaced."""
        if self.remote:
            from pipeline.storage import files as storage

            storage.write_atomic(self.path(name), data)
            return
        path = Path(self.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name has the process number, because two workers might write the same file.
        partial = path.with_name(f".{name}.{os.getpid()}.partial")
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    def claim(self, settings: dict[str, Any], free: Iterable[str]) -> None:
        """Write the settings into the folder; refuse a folder with a run of other settings.

        Args:
            settings: nested, with values that JSON has.
            free: dotted keys, or groups of keys, that may differ from the run in the folder.

        Raises:
            RunFolderError: the folder holds a training state with other settings.
        """
        now = json.loads(json.dumps(settings))
        before = self.read(_CONFIG)
        if before is not None and self.exists(STATE):
            try:
                earlier = flat(json.loads(before))
            except (ValueError, AttributeError) as error:
                raise RunFolderError(
                    f"{self.path(_CONFIG)} cannot be read as JSON ({error}); give another output"
                ) from error
            free = tuple(free)
            stored, current = (
                {
                    key: value
                    for key, value in values.items()
                    if not any(key == f or key.startswith(f"{f}.") for f in free)
                }
                for values in (earlier, flat(now))
            )
            if different := differences(stored, current):
                raise RunFolderError(
                    f"{self.uri} holds a run with other settings:\n"
                    + "".join(f"  {line}\n" for line in different)
                    + "Give another output, or the same settings to resume the run."
                )
        self.write(_CONFIG, json.dumps(now, indent=2).encode())

    def claim_teacher(self, identity: str) -> None:
        """Write the id of the teacher into the folder; refuse a run with another teacher.

        The settings name a file of weights, the id also depends on its content.

        Raises:
            RunFolderError: the folder holds a training state with another teacher.
        """
        before = self.read(_TEACHER)
        if before is not None and before.decode() != identity and self.exists(STATE):
            raise RunFolderError(
                f"{self.uri} holds a run with the teacher {before.decode()}, now it is {identity}; "
                "give another output, or the same teacher to resume the run"
            )
        self.write(_TEACHER, identity.encode())

    def exists(self, name: str) -> bool:
        """Return whether a file exists."""
        if self.remote:
            from pipeline.storage import files as storage

            return storage.exists(self.path(name))
        return Path(self.path(name)).exists()
