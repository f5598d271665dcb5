"""Files on a local disk that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO


def replace_file(path: str, source: BinaryIO) -> None:
    """Put what a file holds at `path`, in place of what was there; folders are made as needed."""
    with _written_beside(path, source) as temporary:
        os.replace(temporary, path)


def link_new(path: str, source: BinaryIO) -> None:
    """As `replace_file`, but never in place of another file.

    Raises:
        FileExistsError: The name is taken.
    """
    with _written_beside(path, source) as temporary:
        try:
            # A link to a finished file: unlike a rename it fails if the name is taken.
            os.link(temporary, path)
        except FileExistsError:
            # NFS may lose the answer to a link that it made: two names mean it is ours.
            if os.stat(temporary).st_nlink != 2:
                raise


@contextmanager
def _written_beside(path: str, source: BinaryIO) -> Iterator[str]:
    """A new file beside `path`, whole and on disk before the body runs; gone after it.

    Not `tempfile`: its files are readable by their owner alone, and results are shared.
    """
    folder, name = os.path.split(path)
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError as error:  # must not look like the answer of a create
        raise NotADirectoryError(errno.ENOTDIR, "not a folder", error.filename) from error
    temporary = os.path.join(folder, f".{name[:100]}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as target:
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
        yield temporary
    finally:
        with suppress(FileNotFoundError):
            os.remove(temporary)
