"""Output files of any length: written to this machine's disk, then published whole."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, BinaryIO, TextIO, cast

from pipeline.storage import files as storage
from pipeline.storage.errors import StorageError

_IN_MEMORY = 1 << 20  # bytes of text that are kept in memory before they go to the disk


@contextmanager
def published(uri: str) -> Iterator[BinaryIO]:
    """A file to write to; it replaces `uri` when the body ends without an error.

    Raises:
        StorageError: it cannot be written, or the temporary folder is full.
    """
    try:
        with tempfile.TemporaryFile(prefix="vsdmot-") as file:
            yield cast(BinaryIO, file)
            file.flush()
            storage.publish(uri, cast(BinaryIO, file))
    except OSError as error:
        if error.errno is None:  # of pyarrow, about a table that is read
            raise
        raise StorageError(
            f"cannot keep {uri} in {tempfile.gettempdir()} while it is written: "
            f"{error.strerror or error}; free some space there, or set TMPDIR to a folder on "
            "another disk"
        ) from error


@contextmanager
def published_text(uri: str) -> Iterator[TextIO]:
    """As `published`, for UTF-8 text with `\\n` as the end of a line."""
    with published(uri) as file:
        text = io.TextIOWrapper(file, "utf-8", newline="\n")
        yield text
        text.flush()
        text.detach()


class JsonArray:
    """A JSON array of any length, whose items are written one after the other."""

    def __init__(self) -> None:
        file = tempfile.SpooledTemporaryFile(_IN_MEMORY, "w+", encoding="utf-8")  # noqa: SIM115
        self._file: IO[str] = file  # closed by write_to
        self._empty = True

    def add(self, item: str) -> None:
        """Add an item, as JSON."""
        self._file.write(item if self._empty else f",\n{item}")
        self._empty = False

    def write_to(self, target: TextIO) -> None:
        """Write the array, and forget it."""
        target.write("[")
        self._file.seek(0)
        shutil.copyfileobj(self._file, target)
        target.write("]")
        self._file.close()
