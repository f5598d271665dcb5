"""Reading the tables of a run, compacted or not: each row of a finished video once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.storage import files as storage
from pipeline.storage.compacted import MERGED, commit_ids, is_missing, newest_commit
from pipeline.storage.errors import StorageError
from pipeline.storage.schema import SCHEMAS, table_uri


def table_files(output: str, table: str) -> list[str]:
    """Files that together hold each row of the finished videos once, whatever runs beside.

    DuckDB, Polars, pandas and Spark all take such a list. Files of videos that are not done, and
    those of a compaction that has not committed, are not in it. A file may be removed `keep_s`
    of `vsdmot compact` after it was listed here; then a reader fails, and can list again.

    Args:
        output: The output of vsdmot track, a folder or URL.
        table: tracks, frames, seams, track_summary or videos.

    Returns:
        Paths or URLs: merged files first, then those of single videos by id.

    Raises:
        StorageError: The output cannot be read.
        ValueError: There is no such table.
    """
    if table not in MERGED:
        raise ValueError(f"no table {table!r} of videos; there are {', '.join(MERGED)}")
    # The order counts. A video that is compacted meanwhile is in the commit, which is read last.
    done = storage.list_stems(f"{output.rstrip('/')}/videos")
    if table != "videos":
        done &= storage.list_stems(f"{output.rstrip('/')}/{table}")
    commit = newest_commit(output)
    if commit is None:
        return [table_uri(output, table, video_id) for video_id in sorted(done)]
    if done:
        done.difference_update(commit_ids(output, commit))
    merged = [each.uri(output, table) for each in commit.sets]
    return merged + [table_uri(output, table, video_id) for video_id in sorted(done)]


def read_batches(
    output: str, table: str, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield all rows of a table, a few at once.

    Raises:
        StorageError: The output cannot be read.
    """
    for uri in table_files(output, table):
        with storage.open_binary(uri) as source:
            yield from pq.ParquetFile(source).iter_batches(columns=columns)


def video_batches(
    output: str, table: str, video_id: str, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of one video, a few at once; none if it has no rows.

    Raises:
        StorageError: The output cannot be read.
    """
    try:
        source = storage.open_binary(table_uri(output, table, video_id))
    except StorageError as error:
        if not is_missing(error):
            raise
    else:
        with source:
            yield from pq.ParquetFile(source).iter_batches(columns=columns)
        return
    commit = newest_commit(output)
    for each in commit.sets if commit else ():
        if each.first <= video_id <= each.last:
            with storage.open_binary(each.uri(output, table)) as source:
                yield from _batches_of(source, video_id, columns)


def read_video(output: str, table: str, video_id: str) -> pa.Table:
    """The rows of one video; empty if it has none.

    Raises:
        StorageError: The output cannot be read.
    """
    batches = list(video_batches(output, table, video_id))
    return pa.Table.from_batches(batches) if batches else SCHEMAS[table].empty_table()


def _batches_of(
    source: BinaryIO, video_id: str, columns: list[str] | None
) -> Iterator[pa.RecordBatch]:
    """The rows of one video in a merged file; row groups without them are not read."""
    file = pq.ParquetFile(source)
    place = file.schema_arrow.get_field_index("video_id")
    needed = []
    for number in range(file.num_row_groups):
        ids = file.metadata.row_group(number).column(place).statistics
        if ids is None or not ids.has_min_max or ids.min <= video_id <= ids.max:
            needed.append(number)
    read = None if columns is None else list(dict.fromkeys(["video_id", *columns]))
    for batch in file.iter_batches(row_groups=needed, columns=read):
        found = batch.filter(pc.equal(batch["video_id"], video_id))
        if len(found):
            yield found if columns is None else found.select(columns)
