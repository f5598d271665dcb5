"""The folder of a training run, on a local disk or in a bucket.

Local folders need nothing but Python, so that training runs on a machine without fsspec; URLs go
through `pipeline.storage.files`.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from model.settings import differences, flat

STATE = "state.safetensors"
RECENT = "recent.jsonl"
"""The last steps as the first worker did them, written before the state that they led to."""
_CONFIG = "config.json"


class RunFolderError(ValueError):
    """The folder belongs to another run; the message names the settings that differ."""


class RunFolder:
    """Files of a run by name; a write leaves the whole file or the one before.

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
        """Return a file, None if it is missing."""
        if self.remote:
            from pipeline.storage import files as storage

            return storage.read_bytes(self.path(name)) if storage.exists(self.path(name)) else None
        path = Path(self.path(name))
        return path.read_bytes() if path.exists() else None

    def write(self, name: str, data: bytes) -> None:
        """Write a file, replacing what was there."""
        if self.remote:
            from pipeline.storage import files as storage

            storage.write_atomic(self.path(name), data)
            return
        path = Path(self.path(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two workers that take each other for dead must not write into one file.
        partial = path.with_name(f".{name}.{os.getpid()}.partial")
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    def claim(self, settings: dict[str, Any], free: Iterable[str]) -> None:
        """Write the settings beside the run, or refuse to go on with a run of others.

        Args:
            settings: nested, as JSON can hold them.
            free: dotted keys, and groups of them, that may change while a run goes on.

        Raises:
            RunFolderError: the folder holds a training state of other settings.
        """
        now = json.loads(json.dumps(settings))
        before = self.read(_CONFIG)
        if before is not None and self.exists(STATE):
            try:
                earlier = flat(json.loads(before))
            except (ValueError, AttributeError) as error:
                raise RunFolderError(
                    f"{self.path(_CONFIG)} does not read ({error}); give another output"
                ) from error
            free = tuple(free)
            there, here = (
                {
                    key: value
                    for key, value in values.items()
                    if not any(key == f or key.startswith(f"{f}.") for f in free)
                }
                for values in (earlier, flat(now))
            )
            if odd := differences(there, here):
                raise RunFolderError(
                    f"{self.uri} holds a run with other settings:\n"
                    + "".join(f"  {line}\n" for line in odd)
                    + "Give another output, or the same settings to go on."
                )
        self.write(_CONFIG, json.dumps(now, indent=2).encode())

    def exists(self, name: str) -> bool:
        """Return whether there is a file."""
        if self.remote:
            from pipeline.storage import files as storage

            return storage.exists(self.path(name))
        return Path(self.path(name)).exists()
