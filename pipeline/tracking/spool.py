"""Storage for the rows of a table until their video is done: on disk, with one row group in RAM."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import BinaryIO, Self, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.errors import StorageError
from pipeline.storage.schema import FRAMES, TRACKS

GROUP_ROWS = 131_072
"""Rows of a row group, the unit that is held in RAM and read at once."""


_BATCH_ROWS = 32_768  # rows read back at once


class SpoolError(StorageError):
    """The rows of a video cannot be written to this machine's temporary folder."""


class TableSpool:
    """One table of one video, in a temporary Parquet file with row groups of one size.

    Columns are filled in place, so RAM is that of one row group, whatever the length of the video.
    Row groups do not depend on how many rows `add` gets at once. The file has no name in its
    folder, so it is removed when the process ends, also by a kill.
    """

    def __init__(self, schema: pa.Schema, video_id: str) -> None:
        """Open the file.

        Args:
            schema: Schema of the table; its column `video_id` is filled here.
            video_id: Id of the video.

        Raises:
            SpoolError: There is no temporary folder that can be written.
        """
        self._schema, self._video_id, self._size = schema, video_id, GROUP_ROWS
        self._columns = {
            field.name: np.empty(self._size, field.type.to_pandas_dtype())
            for field in schema
            if field.name != "video_id"
        }
        self._filled = 0
        with spooling(self._video_id):
            temporary = tempfile.TemporaryFile(prefix="vsdmot-")  # noqa: SIM115, see __exit__
            self._file = cast(BinaryIO, temporary)
            self._writer = pq.ParquetWriter(self._file, schema, compression="zstd")

    def __enter__(self) -> TableSpool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The file is not needed any more, and `add` and `finished` have reported a full disk.
        with suppress(OSError, pa.ArrowException):
            self._writer.close()
        with suppress(OSError):
            self._file.close()

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        """Append rows, given by column.

        Raises:
            SpoolError: The disk is full or fails.
        """
        start, stop = 0, len(rows["frame_index"])
        while start < stop:
            taken = min(stop - start, self._size - self._filled)
            for name, column in self._columns.items():
                column[self._filled : self._filled + taken] = rows[name][start : start + taken]
            self._filled += taken
            start += taken
            if self._filled == self._size:
                self._flush()

    def finished(self) -> BinaryIO:
        """Close the table and return the Parquet file, open at its start.

        Raises:
            SpoolError: The disk is full or fails.
        """
        if self._filled:
            self._flush()
        with spooling(self._video_id):
            self._writer.close()
            self._file.flush()
            self._file.seek(0)
        return self._file

    def _flush(self) -> None:
        ids = pa.repeat(pa.scalar(self._video_id), self._filled)
        columns = [
            pa.array(self._columns[field.name][: self._filled], field.type)
            for field in self._schema
            if field.name != "video_id"
        ]
        group = pa.Table.from_arrays([ids, *columns], schema=self._schema)
        with spooling(self._video_id):
            self._writer.write_table(group, row_group_size=self._size)
        self._filled = 0


class RowSpools:
    """The tables `tracks` and `frames` of one video, as spools.

    Attributes:
        tracks, frames: The tables.
    """

    def __init__(self, video_id: str) -> None:
        """Open the tables. Used as a context manager, which deletes them at its end.

        Raises:
            SpoolError: No temporary folder can be written.
        """
        with ExitStack() as stack:
            self.tracks = stack.enter_context(TableSpool(TRACKS, video_id))
            self.frames = stack.enter_context(TableSpool(FRAMES, video_id))
            self._open = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


@contextmanager
def spooling(video_id: str) -> Iterator[None]:
    """Raise errors of this machine's temporary folder as SpoolError, with the remedy."""
    try:
        yield
    except OSError as error:
        where = tempfile.tempdir or "a temporary folder"
        raise SpoolError(
            f"cannot keep the rows of {video_id} in {where}: {error.strerror or error}; "
            "free some space there, or set TMPDIR of the workers to a folder on another disk"
        ) from error


def stored_rows(file: BinaryIO) -> Iterator[dict[str, np.ndarray]]:
    """Rows of a finished table, by column and without `video_id`, some thousands at once."""
    for batch in pq.ParquetFile(file).iter_batches(_BATCH_ROWS):
        yield {
            name: column.to_numpy(zero_copy_only=False)
            for name, column in zip(batch.schema.names, batch.columns, strict=True)
            if name != "video_id"
        }
