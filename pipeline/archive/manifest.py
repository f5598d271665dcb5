"""The manifest of an output: what the header of each file says, so that it is read once."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from itertools import pairwise
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.archive.id_set import keys_of
from pipeline.archive.survey import Unreadable, unreadable
from pipeline.storage import files as storage
from pipeline.storage.errors import StorageError
from pipeline.storage.files import ArchiveFile
from pipeline.storage.schema import (
    MANIFEST,
    SCHEMA_VERSION,
    rows_table,
    storable,
    table_uri,
    to_parquet_bytes,
)
from pipeline.video.info import VideoInfo

_GROUP_ROWS = 4096  # rows of a row group, and new rows of a part
_SPOOLED = 1024 * 1024  # bytes of a temporary file that are kept in RAM
_NO_KEY = bytes(16)  # of a file without etag and time of change
_NAME = "manifest"  # of the finished manifest; other files of the folder are parts


class Manifest:
    """The rows of earlier runs, found by file, and the rows of this run.

    While a run goes on, new rows are written as parts beside the manifest of the run before, so
    that the next run has them if this one dies. At its end one file with a row for each file of
    the archive replaces them all. In RAM are 24 bytes a row; the rows are on this machine's disk.
    Use as a context manager.

    Args:
        output: The output folder.
        run: Name of this run, for its parts.
        again: Whether rows of files that could not be read are left out, so that they are tried
            again.
        dry: Whether nothing is written to the output. It may then be "", for none.
    """

    def __init__(self, output: str, run: str, again: bool = False, dry: bool = False) -> None:
        """Copy the rows of earlier runs to this machine.

        Raises:
            StorageError: They cannot be read.
        """
        self._output, self._run, self._dry = output, run, dry
        self._parts = 0
        self._new: list[pa.Table] = []
        self._waiting: list[pa.Table] = []
        self._rows, self._changed = 0, False
        self._earlier, self._written = _spooled(), _spooled()
        self._writer = pq.ParquetWriter(self._written, MANIFEST, compression="zstd")
        self._names = set(storage.iter_stems(f"{output}/manifest")) if output else set()
        self._group = -1, MANIFEST.empty_table()  # the row group that was read last
        self._index(again)

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the temporary files."""
        with suppress(OSError):  # after an error the file is of no use
            self._writer.close()
        self._earlier.close()
        self._written.close()

    def __len__(self) -> int:
        """Number of rows of earlier runs."""
        return len(self._keys)

    def look_up(self, files: Sequence[ArchiveFile]) -> tuple[npt.NDArray[np.bool_], pa.Table]:
        """Which files have a row of an earlier run, (N,), and those rows in their order.

        A file has one if its path, size and etag or time of change are those of then. Its content
        is not looked at.
        """
        keys = keys_of(b"".join(key_of(file) or _NO_KEY for file in files))
        if not len(self):
            return np.zeros(len(files), bool), MANIFEST.empty_table()
        place = np.minimum(np.searchsorted(self._keys, keys), len(self) - 1)
        found = self._keys[place] == keys
        rows = self._take(self._places[place[found]])
        # The root may have moved. What is stored has secrets masked.
        before = rows.column("uri").to_pylist()
        uris = [file.uri for file, known in zip(files, found, strict=True) if known]
        now = [a if a == b else storable(a) for a, b in zip(uris, before, strict=True)]
        if now != before:
            self._changed = True
            index = rows.schema.get_field_index("uri")
            rows = rows.set_column(index, MANIFEST.field("uri"), pa.array(now, pa.string()))
        return found, rows

    def keep(self, rows: pa.Table) -> None:
        """Take over rows of `look_up` into the manifest of this run."""
        self._write(rows)

    def add(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Add rows of `manifest_row`, as a part too when there are enough."""
        if rows and not self._dry:
            table = rows_table(rows, MANIFEST)
            self._changed = True
            self._write(table)
            self._new.append(table)
            if sum(map(len, self._new)) >= _GROUP_ROWS:
                self._write_part()

    def publish(self) -> BinaryIO:
        """Write the manifest of this run, if it differs; returns it, open on this machine.

        Of a dry run it has the rows of earlier runs alone, and nothing is written.

        Raises:
            StorageError: It cannot be written.
        """
        self._flush()
        with _on_this_disk():
            self._writer.close()
        parts = self._names - {_NAME}
        if self._dry:
            return self._written
        if self._changed or self._rows != len(self) or parts or _NAME not in self._names:
            storage.publish(table_uri(self._output, "manifest", _NAME), self._written)
            for name in sorted(parts):
                storage.remove(table_uri(self._output, "manifest", name))
        return self._written

    def _write_part(self) -> None:
        name = f"{self._run}-{self._parts:05}"
        data = to_parquet_bytes(pa.concat_tables(self._new))
        storage.write_atomic(table_uri(self._output, "manifest", name), data)
        self._names.add(name)
        self._parts += 1
        self._new.clear()

    def _write(self, rows: pa.Table) -> None:
        self._rows += len(rows)
        self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= _GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            table = pa.concat_tables(self._waiting).cast(MANIFEST)
            with _on_this_disk():
                self._writer.write_table(table, row_group_size=_GROUP_ROWS)
            self._waiting.clear()

    def _index(self, again: bool) -> None:
        """Join the files of earlier runs into one, and sort the keys of their rows."""
        keys, counts = [], []
        with (
            _on_this_disk(),
            pq.ParquetWriter(self._earlier, MANIFEST, compression="lz4") as writer,
        ):
            # Of two rows of one file the later one counts: those of parts come last.
            for name in sorted(self._names, key=lambda name: (name != _NAME, name)):
                for table in _stored(table_uri(self._output, "manifest", name)):
                    rows = table.filter(pc.is_null(table["error"])) if again else table
                    writer.write_table(rows, row_group_size=max(1, len(rows)))
                    column = rows["file_key"].to_pylist()
                    keys.append(keys_of(b"".join(key or _NO_KEY for key in column)))
                    counts.append(len(rows))
        every = np.concatenate([keys_of(b""), *keys])
        places = np.argsort(every, kind="stable")
        every = every[places]
        usable = every != keys_of(_NO_KEY)[0]
        usable[:-1] &= every[1:] != every[:-1]
        self._keys, self._places = every[usable], places[usable]
        self._starts = np.cumsum([0, *counts])
        self._file = pq.ParquetFile(self._earlier)

    def _take(self, places: npt.NDArray[np.int64]) -> pa.Table:
        """Rows of earlier runs by their number. Neighbours cost one read of a row group."""
        groups = np.searchsorted(self._starts, places, side="right") - 1
        bounds = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(places)]
        pieces = [MANIFEST.empty_table()]
        for start, end in pairwise(bounds):
            if start < end:
                group = int(groups[start])
                if self._group[0] != group:
                    self._group = group, self._file.read_row_group(group)
                inside = places[start:end] - self._starts[group]
                pieces.append(self._group[1].take(pa.array(inside)))
        return pa.concat_tables(pieces)


def key_of(file: ArchiveFile) -> bytes | None:
    """Hash of what a listing tells of a file, 16 bytes; None where that does not show a change."""
    version = file.etag if file.etag is not None else file.modified_ns
    if version is None:
        return None
    text = f"{file.relative_path}\0{file.size}\0{version}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def manifest_row(file: ArchiveFile, found: VideoInfo | Unreadable) -> dict[str, object]:
    """The row of a file."""
    row = {name: value for name, value in asdict(found).items() if name in MANIFEST.names}
    return row | {"file_key": key_of(file)}


def from_manifest(file: ArchiveFile, row: Mapping[str, Any]) -> VideoInfo | Unreadable:
    """What the row of a file says."""
    # Path and URI are those of the file, because the table has secrets masked.
    if row["error"] is not None:
        return unreadable(file, str(row["video_id"]), str(row["error"]))
    values = {field.name: row[field.name] for field in fields(VideoInfo)}
    return VideoInfo(**values | {"uri": file.uri, "relative_path": file.relative_path})


def _spooled() -> BinaryIO:
    """A temporary file, which is in RAM while it is small."""
    file = tempfile.SpooledTemporaryFile(_SPOOLED)  # noqa: SIM115, closed by `Manifest`
    return cast(BinaryIO, file)


@contextmanager
def _on_this_disk() -> Iterator[None]:
    """Raise errors of temporary files as StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write to the temporary folder {tempfile.gettempdir()}: "
            f"{error.strerror or error}; free some space there, or set TMPDIR to another folder"
        ) from error


def _stored(uri: str) -> Iterator[pa.Table]:
    """Row groups of a manifest; none if it has another schema, or another run has removed it."""
    try:
        with storage.open_binary(uri) as source:
            file = pq.ParquetFile(source)
            if not file.schema_arrow.equals(MANIFEST):
                return
            if file.schema_arrow.metadata.get(b"schema_version") != str(SCHEMA_VERSION).encode():
                return
            for index in range(file.num_row_groups):
                yield file.read_row_group(index)
    except StorageError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
    except (pa.ArrowException, OSError) as error:
        raise StorageError(
            f"cannot read {uri}: {error}; remove it, then the headers are read again"
        ) from error
