"""Atomic writes on a local disk: a file appears whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO


def replace_file(path: str, source: BinaryIO) -> None:
    """Write the content of an open file to `path`, replacing a file there; folders are made."""
    with _written_beside(path, source) as temporary:
        os.replace(temporary, path)


def link_new(path: str, source: BinaryIO) -> None:
    """As `replace_file`, but an existing file is never replaced.

    Raises:
        FileExistsError: There is a file of this name.
    """
    with _written_beside(path, source) as temporary:
        try:
            # A hard link fails if the file exists; a rename would replace it.
            os.link(temporary, path)
        except FileExistsError:
            # NFS may lose the answer to a link that it made. Two names mean that it is ours.
            if os.stat(temporary).st_nlink != 2:
                raise


@contextmanager
def _written_beside(path: str, source: BinaryIO) -> Iterator[str]:
    """A new file in the folder of `path`, synced before the body runs and removed after it.

    `tempfile` is not used, because only the owner can read its files, and results are shared.
    """
    folder, name = os.path.split(path)
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError as error:  # FileExistsError would mean that the result exists
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
