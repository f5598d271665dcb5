"""The files that `input` names: those of a folder, of a pattern, or of a list."""

from __future__ import annotations

import csv
import io
import os
import posixpath
import re
from collections import deque
from collections.abc import Iterator
from itertools import chain
from pathlib import PurePosixPath
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.archive.in_order import in_order
from pipeline.archive.survey import Unread
from pipeline.storage import files as storage
from pipeline.storage.errors import StorageError
from pipeline.storage.files import ArchiveFile
from pipeline.storage.secrets import mask_secrets

_COLUMNS = ("uri", "path")  # of a list, the first that is there
_LOOK_UPS = 16  # files of a list that are looked up at once
_ROWS = 1024  # rows of a list read at once
_MAGIC = re.compile(r"[*?[]")


def find_files(given: str, output: str) -> Iterator[ArchiveFile | Unread]:
    """The videos that `input` names, without those in the output folder, as a stream.

    What cannot be listed or is not there comes as `Unread`.

    Args:
        given: A folder, file or URL; a pattern such as `/data/cams/*/2024-0?/*.mp4`; or
            `@list.parquet`, `@list.csv`, `@list.txt`, the paths in that file.
        output: The output folder; "" if there is none.

    Raises:
        StorageError: What is given cannot be listed or read, or has no video. Raised by this call,
            not by the iterator, but for a store or a list that fails later on.
    """
    found = _listed(given[1:]) if given.startswith("@") else _below(given)
    if output:
        found = _outside(found, output)
    before: list[ArchiveFile | Unread] = []
    for file in found:
        before.append(file)
        if isinstance(file, ArchiveFile):
            return chain(before, found)
    if before:
        raise StorageError(cast(Unread, before[0]).reason)
    raise StorageError(_nothing(mask_secrets(given)))


def _outside(files: Iterator[ArchiveFile | Unread], output: str) -> Iterator[ArchiveFile | Unread]:
    """Leave out the files in the output folder."""
    # Listed local paths are absolute; URLs start as the root was given.
    results = (output if "://" in output else os.path.abspath(output)).rstrip("/") + "/"
    for file in files:
        if isinstance(file, Unread) or not file.uri.startswith(results):
            yield file


def _below(given: str) -> Iterator[ArchiveFile | Unread]:
    """The files of a folder or a pattern."""
    root, pattern = _parts(given)
    lost: deque[Unread] = deque()

    def failed(path: str, error: StorageError) -> None:
        lost.append(Unread(path, str(error)))

    try:
        files = storage.list_videos(root, failed, pattern)
    except ValueError as error:
        raise StorageError(f"cannot list {given}: {error}; correct the pattern") from error
    for file in files:
        while lost:
            yield lost.popleft()
        yield file
    yield from lost


def _parts(given: str) -> tuple[str, str]:
    """Root and pattern. A path that exists is no pattern, whatever characters it has."""
    if not _MAGIC.search(given) or storage.exists(given):
        return given, "**"
    parts = given.split("/")
    first = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
    root = "/".join(parts[:first]) or ("/" if given.startswith("/") else ".")
    return root, "/".join(parts[first:])


def _nothing(given: str) -> str:
    if given.startswith("@"):
        return f"no path in the list {given[1:]}; check the file"
    endings = ", ".join(sorted(storage.VIDEO_EXTENSIONS))
    if _MAGIC.search(given):
        return (
            f"no video matches {given}; a pattern matches files, so end it with a name such as "
            f"*.mp4; ** stands for folders; a video ends in one of {endings}"
        )
    return (
        f"no video in {given} or a folder below it; a video ends in one of {endings}; check the "
        "path"
    )


def _listed(uri: str) -> Iterator[ArchiveFile | Unread]:
    """The files of a list, in its order."""
    folder = posixpath.dirname(uri if "://" in uri else os.path.abspath(uri))

    def look_up(entry: tuple[str, str | None]) -> ArchiveFile | Unread:
        path, relative_path = entry
        if "://" in path:
            whole = path
        elif "://" in folder and not path.startswith("/"):
            whole = f"{folder}/{posixpath.normpath(path)}"
        else:
            whole = posixpath.normpath(posixpath.join(folder, path))
        try:
            return storage.look_up(whole, relative_path or _relative(whole, folder))
        except StorageError as error:
            return Unread(path, str(error))

    return in_order(look_up, _entries(uri), _LOOK_UPS)


def _relative(uri: str, folder: str) -> str:
    """Path of a listed file for its id: below the list's folder if it is there, else all of it."""
    below = uri.removeprefix(folder.rstrip("/") + "/")
    return below if below != uri else uri.split("://", 1)[-1].lstrip("/")


def _entries(uri: str) -> Iterator[tuple[str, str | None]]:
    """Paths of a list, and their `relative_path` where it has such a column."""
    readers = {".parquet": _parquet, ".csv": _csv, ".txt": _text}
    suffix = PurePosixPath(uri).suffix.lower()
    if suffix not in readers:
        raise StorageError(f"cannot read the list {uri}: a list is a .parquet, .csv or .txt file")
    try:
        for row, (path, relative_path) in enumerate(readers[suffix](uri), start=1):
            if not path:
                raise StorageError(f"cannot read the list {uri}: row {row} has no path")
            yield path, relative_path
    except (pa.ArrowException, csv.Error, UnicodeDecodeError) as error:
        raise StorageError(
            f"cannot read the list {uri}: {error}; check that it is a {suffix} file in UTF-8"
        ) from error


def _parquet(uri: str) -> Iterator[tuple[str | None, str | None]]:
    with storage.open_binary(uri) as source:
        table = pq.ParquetFile(source)
        names = table.schema_arrow.names
        column = _column(uri, names)
        also = ["relative_path"] if "relative_path" in names else []
        for batch in table.iter_batches(_ROWS, columns=[column, *also]):
            paths = batch.column(column).cast(pa.string()).to_pylist()
            yield from zip(
                paths,
                batch.column(also[0]).cast(pa.string()).to_pylist()
                if also
                else [None] * len(paths),
                strict=True,
            )


def _csv(uri: str) -> Iterator[tuple[str | None, str | None]]:
    with storage.open_binary(uri) as source:
        rows = csv.DictReader(io.TextIOWrapper(source, "utf-8-sig", newline=""))
        column = _column(uri, rows.fieldnames or [])
        for row in rows:
            yield row[column], row.get("relative_path")


def _text(uri: str) -> Iterator[tuple[str, None]]:
    with storage.open_binary(uri) as source:
        for line in io.TextIOWrapper(source, "utf-8-sig"):
            if line.strip():
                yield line.rstrip("\r\n"), None


def _column(uri: str, names: object) -> str:
    there = list(names) if isinstance(names, list | tuple) else []
    for name in _COLUMNS:
        if name in there:
            return name
    raise StorageError(
        f"cannot read the list {uri}: its columns are {', '.join(map(str, there)) or 'none'}; name "
        "the one with the paths uri or path"
    )
