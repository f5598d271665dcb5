"""Compiled graphs on disk, shared by the processes of a machine.

A file holds the SHA-256 of a graph and the graph. It is published by a rename, so that a reader
finds a whole file or none; a damaged one is made anew. Files that nobody has read for a month are
removed: those of other weights or versions, and what a killed process left.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_DIGEST = hashlib.sha256().digest_size
_UNUSED_S = 30 * 24 * 3600.0


def cache_folder() -> Path:
    """The folder of this user's graphs, `$XDG_CACHE_HOME/vsdmot`; deleting it does no harm."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vsdmot"


class GraphCache:
    """A folder of graphs by key.

    Attributes:
        problem: Why graphs could not be kept; "" if they could.
    """

    def __init__(self, folder: Path, before: Path | None = None) -> None:
        """Take a folder, which is made when the first graph is kept.

        Args:
            folder: The folder.
            before: Another one, whose graphs are read too. Nothing in it changes.
        """
        self.folder = folder
        self.problem = ""
        self._before = before

    def get(self, key: str, read: Callable[[bytes], T | None], make: Callable[[], bytes]) -> T:
        """Read a graph, or make and keep it. Of several processes one makes it, the others wait.

        Args:
            key: Name of the graph's file. Other content has another key.
            read: Opens what was kept; None if it is of no use.
            make: Makes the bytes to keep. They are read too, so that a graph computes the same
                in the process that makes it as in all others.

        Raises:
            RuntimeError: What was made just now is of no use.
        """
        graph = self._kept(key, read)
        if graph is None:
            with self._alone(key):
                graph = self._kept(key, read)
                if graph is None:
                    data = make()
                    self._keep(key, data)
                    self._remove_unused()
                    graph = read(data)
        if graph is None:
            raise RuntimeError(f"the graph {key} that was made just now cannot be read")
        return graph

    def _kept(self, key: str, read: Callable[[bytes], T | None]) -> T | None:
        content = _content(self.folder / key)
        if content is not None:
            with suppress(OSError):  # a folder that is read-only is good to read
                os.utime(self.folder / key)  # in use, see `_remove_unused`
        elif self._before is not None:
            content = _content(self._before / key)
        if content is None:
            return None
        data = content[_DIGEST:]
        whole = hashlib.sha256(data).digest() == content[:_DIGEST]
        return read(data) if whole else None

    def _keep(self, key: str, data: bytes) -> None:
        if self.problem:
            return
        partial = None
        try:
            with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
                partial = Path(file.name)
                file.write(hashlib.sha256(data).digest() + data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.folder / key)
        except OSError as error:
            self._not_kept(error)
            if partial is not None:
                partial.unlink(missing_ok=True)

    def _remove_unused(self) -> None:
        """Remove files that were not read for `_UNUSED_S`, but no lock that a process holds."""
        oldest = time.time() - _UNUSED_S
        with suppress(OSError):  # an old file that stays does no harm
            for path in self.folder.iterdir():
                if path.is_file() and path.stat().st_mtime < oldest:
                    _remove(path)

    @contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        """Wait for other processes that make this graph; the lock ends with its process."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = (self.folder / f"{key}.lock").open("w")
        except OSError as error:
            self._not_kept(error)
            yield
            return
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _not_kept(self, error: OSError) -> None:
        self.problem = (
            f"graphs cannot be kept in {self.folder} ({error.strerror or error}), so that each "
            "process converts the model anew; set XDG_CACHE_HOME to a folder that can be written"
        )


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _remove(path: Path) -> None:
    """Remove a file, unless it is a lock that a process holds."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        path.unlink()
