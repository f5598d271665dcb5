"""Rows of many videos become one file of each table, as a stream, sorted by video."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.compaction.ahead import ahead
from pipeline.compaction.plan import FreshVideo, Group
from pipeline.storage import files as storage
from pipeline.storage.compacted import MERGED, CompactedSet, is_missing
from pipeline.storage.errors import StorageError
from pipeline.storage.schema import SCHEMAS, table_uri

GROUP_ROWS = 1_048_576
"""Rows of a row group of a merged file."""

_SORTED_BY = {
    "tracks": ("video_id", "frame_index", "track_id"),
    "frames": ("video_id", "frame_index"),
    "seams": ("video_id", "seam"),
    "track_summary": ("video_id", "track_id"),
    "videos": ("video_id",),
}
_BATCH = 65_536  # rows read at once of a file that is not read whole
_WHOLE = 131_072  # rows of a file that is read whole, ahead of its use

# Arrow raises OSError for pages that cannot be decompressed.
_UNREADABLE = (pa.ArrowException, KeyError, OSError)

Rows = tuple[str, pa.Table]
"""Some consecutive rows of a video, with its id."""


class DamagedVideo(ValueError):
    """A table of a finished video is missing or cannot be read.

    Attributes:
        video_id: The video.
    """

    def __init__(self, video_id: str, reason: str) -> None:
        super().__init__(reason)
        self.video_id = video_id


@dataclass(frozen=True, slots=True)
class Merged:
    """What a set holds.

    Attributes:
        rows: Rows by table.
        bytes: Size of the largest file.
        first, last: Least and greatest video_id.
    """

    rows: dict[str, int]
    bytes: int
    first: str
    last: str


def merge(output: str, group: Group, target: CompactedSet, pool: ThreadPoolExecutor) -> Merged:
    """Merge a group of at least one video into the files of a set, and write them.

    Args:
        output: The output.
        group: What to merge.
        target: The set, of which the path counts.
        pool: Reads files of single videos ahead.

    Raises:
        DamagedVideo: A video cannot be merged. No file has been written.
        StorageError: A file cannot be read or written.
    """
    with ExitStack() as stack:
        written = {}
        for table in MERGED:
            file = stack.enter_context(_temporary_file())
            written[table] = file, _write(file, table, _sorted_rows(output, table, group, pool))
        expected = len(group.videos) + sum(each.videos for each in group.sets)
        if written["videos"][1] != expected:
            raise StorageError(
                f"{output}: {expected} videos were to be merged, but their table has "
                f"{written['videos'][1]} rows; nothing was changed"
            )
        ids = pq.read_table(written["videos"][0], columns=["video_id"])["video_id"]
        size = 0
        for table, (file, _) in written.items():
            size = max(size, file.seek(0, 2))
            storage.publish(target.uri(output, table), file)
    rows = {table: count for table, (_, count) in written.items()}
    return Merged(rows, size, ids[0].as_py(), ids[-1].as_py())


def _sorted_rows(output: str, table: str, group: Group, pool: ThreadPoolExecutor) -> Iterator[Rows]:
    sources = [_of_videos(output, table, group.videos, pool)]
    sources += [_of_set(each.uri(output, table)) for each in group.sets]
    # Each video is in one source, so its rows stay together and in their order.
    return heapq.merge(*sources, key=lambda rows: rows[0])


def _of_videos(
    output: str, table: str, videos: Iterable[FreshVideo], pool: ThreadPoolExecutor
) -> Iterator[Rows]:
    """Rows from files of single videos."""

    def start(video: FreshVideo) -> pa.Table | pq.ParquetFile:
        """The rows, or a file that is too long to be read ahead."""
        try:
            file = pq.ParquetFile(storage.open_binary(table_uri(output, table, video.video_id)))
            if file.metadata.num_rows > _WHOLE:
                return file
            with file:
                return _typed(file.read(), table)
        except StorageError as error:
            if not is_missing(error):
                raise
            raise DamagedVideo(video.video_id, f"its file of {table} is missing") from error
        except _UNREADABLE as error:
            raise _damage(error, video.video_id, table) from error

    there = (video for video in videos if table != "seams" or video.has_seams)
    for video, found in ahead(pool, start, there):
        if isinstance(found, pa.Table):
            yield video.video_id, found
            continue
        with found:
            try:
                for batch in found.iter_batches(_BATCH):
                    yield video.video_id, _typed(pa.Table.from_batches([batch]), table)
            except _UNREADABLE as error:
                raise _damage(error, video.video_id, table) from error


def _of_set(uri: str) -> Iterator[Rows]:
    """Rows of a merged file, divided by video."""
    with storage.open_binary(uri) as source:
        for batch in _batches(source, uri):
            rows = pa.Table.from_batches([batch])
            runs = pc.run_end_encode(batch.column("video_id"))
            start = 0
            for video_id, end in zip(
                runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True
            ):
                yield video_id, rows.slice(start, end - start)
                start = end


def _batches(source: BinaryIO, uri: str) -> Iterator[pa.RecordBatch]:
    try:
        yield from pq.ParquetFile(source).iter_batches(_BATCH)
    except _UNREADABLE as error:
        raise StorageError(
            f"cannot read {uri}: {error}; if this merged file is damaged, restore it from a copy"
        ) from error


def _damage(error: Exception, video_id: str, table: str) -> Exception:
    """What to raise for a file of a video that cannot be read."""
    if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of Arrow
        uri = f"the {table} of {video_id}"
        return StorageError(f"cannot read {uri}: {error}; check the disk, then run again")
    return DamagedVideo(video_id, f"its file of {table}: {error}")


def _typed(rows: pa.Table, table: str) -> pa.Table:
    """Rows with the columns and types of the schema.

    Raises:
        KeyError: A column is missing.
        ArrowInvalid: A column is of another type.
    """
    schema = SCHEMAS[table]
    return rows if rows.schema.equals(schema) else rows.select(schema.names).cast(schema)


def _write(target: BinaryIO, table: str, pieces: Iterable[Rows]) -> int:
    """Write a Parquet file of one table; returns the number of rows."""
    schema = SCHEMAS[table]
    # A dictionary of floats, nearly all of which differ, would make their column larger.
    repeating = [field.name for field in schema if not pa.types.is_floating(field.type)]
    order = [pq.SortingColumn(schema.get_field_index(name)) for name in _SORTED_BY[table]]
    total = waiting = 0
    buffer: list[pa.Table] = []
    with (
        _explained(),
        pq.ParquetWriter(
            target,
            schema,
            compression="zstd",
            use_dictionary=repeating,
            sorting_columns=order,
            write_page_index=True,
        ) as writer,
    ):
        for _, rows in pieces:
            buffer.append(rows)
            waiting += len(rows)
            while waiting >= GROUP_ROWS:
                joined = pa.concat_tables(buffer)
                writer.write_table(joined.slice(0, GROUP_ROWS), GROUP_ROWS)
                buffer = [joined.slice(GROUP_ROWS)]
                waiting -= GROUP_ROWS
                total += GROUP_ROWS
        if waiting:
            writer.write_table(pa.concat_tables(buffer), GROUP_ROWS)
    return total + waiting


def _temporary_file() -> BinaryIO:
    with _explained():
        return cast(BinaryIO, tempfile.TemporaryFile(prefix="vsdmot-"))


@contextmanager
def _explained() -> Iterator[None]:
    """Errors of the temporary folder; those of the files that are read are no OSError here."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot keep merged rows in {tempfile.gettempdir()}: {error.strerror or error}; "
            "free some space there, or set TMPDIR to a folder on another disk"
        ) from error
