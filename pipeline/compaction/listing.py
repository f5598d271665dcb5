"""What a compaction finds in the folder: videos to merge, and files that do not count any more.

Ids are held in Arrow arrays, some 50 bytes each, because there may be hundreds of thousands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.compaction.ahead import ahead
from pipeline.compaction.config import PartitionKey
from pipeline.compaction.plan import FreshVideo, partition_value
from pipeline.storage import files as storage
from pipeline.storage.compacted import (
    MERGED,
    Commit,
    commit_ids,
    commit_numbers,
    commit_uri,
    compacted_folder,
    is_missing,
)
from pipeline.storage.errors import StorageError
from pipeline.storage.file_systems import resolve, walk
from pipeline.storage.schema import table_uri

_AT_ONCE = 65_536  # ids in a chunk of an array
_LISTED = ("videos", "tracks", "frames", "seams", "track_summary", "dead_letters")
_RUN_FILE = re.compile(r"\d{8}-[0-9a-f]{8}-\d{4,}\.parquet$")


@dataclass(frozen=True, slots=True)
class Found:
    """What a listing of the output found.

    Attributes:
        fresh: Videos to merge, unsorted: columns video_id, bytes and has_seams.
        stale: Files of single videos whose rows are in a set, by table: ids.
    """

    fresh: pa.Table
    stale: dict[str, pa.ChunkedArray]

    def stale_files(self, output: str) -> Iterator[str]:
        """Paths of the files that do not count; the row of a video comes last."""
        for table, ids in reversed(self.stale.items()):
            for chunk in ids.iterchunks():
                yield from (table_uri(output, table, video_id) for video_id in chunk.to_pylist())


def find(output: str, commit: Commit) -> Found:
    """List the files of single videos, and compare them with a commit.

    Raises:
        StorageError: The output cannot be read.
    """
    # A video's row is written last, so the files of each video in this list are there.
    listed = {table: _listed(f"{output}/{table}") for table in _LISTED}
    merged = _array(commit_ids(output, commit))
    stale, live = {}, {}
    for table, files in listed.items():
        # Of a dead letter and a row the row counts, so dead letters of merged videos are stale too.
        known = pc.is_in(files["video_id"], value_set=merged)
        stale[table] = files["video_id"].filter(known)
        live[table] = files.filter(pc.invert(known))
    sizes = [live[t].rename_columns(["video_id", t]) for t in ("tracks", "frames", "seams")]
    fresh = live["videos"].select(["video_id"])
    for size in sizes:
        fresh = fresh.join(size, "video_id", join_type="left outer")
    largest = pc.max_element_wise(fresh["tracks"], fresh["frames"], 0)
    return Found(
        pa.table(
            {
                "video_id": fresh["video_id"],
                "bytes": largest,
                "has_seams": pc.is_valid(fresh["seams"]),
            }
        ),
        stale,
    )


def in_order(
    output: str,
    fresh: pa.Table,
    key: PartitionKey,
    pool: ThreadPoolExecutor,
    skip: Callable[[str, str], None],
) -> Iterator[FreshVideo]:
    """Yield the videos to merge by partition, then by id.

    Args:
        output: The output.
        fresh: From `find`.
        key: What to partition by. Unless it is "none", the row of each video is read for its path.
        pool: Reads the rows.
        skip: Called with the id of a video whose row cannot be read, and the reason.

    Raises:
        StorageError: The output cannot be read.
    """
    if key == "none":
        values = pa.chunked_array([pa.repeat(pa.scalar(""), len(fresh))])
    else:
        values = _array(_partitions(output, fresh, key, pool, skip))
    fresh = fresh.append_column("partition", values).filter(pc.is_valid(values))
    fresh = fresh.sort_by([("partition", "ascending"), ("video_id", "ascending")])
    for batch in fresh.to_batches(_AT_ONCE):
        for row in batch.to_pylist():
            yield FreshVideo(**row)


def _partitions(
    output: str,
    fresh: pa.Table,
    key: PartitionKey,
    pool: ThreadPoolExecutor,
    skip: Callable[[str, str], None],
) -> Iterator[str | None]:
    """Yield the partition of each video, None for one whose row cannot be read."""

    def read(video_id: str) -> str | Exception:
        data = storage.read_bytes(table_uri(output, "videos", video_id))
        try:
            row = pq.read_table(pa.BufferReader(data), columns=["relative_path"])
            return partition_value(row["relative_path"][0].as_py(), key)
        except (pa.ArrowException, OSError, LookupError) as error:  # of Arrow, as a file is read
            return error

    ids = (video_id for chunk in fresh["video_id"].iterchunks() for video_id in chunk.to_pylist())
    for video_id, found in ahead(pool, read, ids):
        if isinstance(found, Exception):
            skip(video_id, f"its row in videos: {found}")
            yield None
        else:
            yield found


def stale_sets(output: str, commit: Commit) -> Iterator[str]:
    """Yield merged files and commits that do not count: replaced ones, and those of killed runs.

    Raises:
        StorageError: The output cannot be read.
    """
    for number in commit_numbers(output):
        if number < commit.number:
            yield commit_uri(output, number)
    counted = {each.path for each in commit.sets}
    root = compacted_folder(output)
    for table in MERGED:
        base = f"{root}/{table}"
        for path, _ in _files(base):
            if _RUN_FILE.search(path) and path.removesuffix(".parquet") not in counted:
                yield f"{base}/{path}"


def _listed(folder: str) -> pa.Table:
    """Stems and sizes of the Parquet files directly in a folder."""
    chunks = []
    names: list[str] = []
    sizes: list[int] = []

    def flush() -> None:
        chunks.append(
            pa.table(
                {"video_id": pa.array(names, pa.string()), "bytes": pa.array(sizes, pa.int64())}
            )
        )
        names.clear()
        sizes.clear()

    for path, size in _files(folder):
        if path.endswith(".parquet") and "/" not in path:
            names.append(path.removesuffix(".parquet"))
            sizes.append(size)
            if len(names) == _AT_ONCE:
                flush()
    flush()
    return pa.concat_tables(chunks)


def _files(folder: str) -> Iterator[tuple[str, int]]:
    """Paths below a folder, and sizes; none if it is missing."""
    fs, path = resolve(folder)
    base = path.rstrip("/") + "/"
    try:
        for entry in walk(fs, path):
            yield entry["name"].removeprefix(base), int(entry["size"] or 0)
    except StorageError as error:
        if not is_missing(error):
            raise


def _array(texts: Iterator[str | None]) -> pa.ChunkedArray:
    """Texts as an array, without a list of all of them."""
    chunks = []
    buffer: list[str | None] = []
    for text in texts:
        buffer.append(text)
        if len(buffer) == _AT_ONCE:
            chunks.append(pa.array(buffer, pa.string()))
            buffer = []
    chunks.append(pa.array(buffer, pa.string()))
    return pa.chunked_array(chunks)
