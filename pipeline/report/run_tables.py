"""What a run has left in its output: its record, and the tables that have a row for each video."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.errors import StorageError
from pipeline.storage.files import exists, iter_stems, list_stems, open_binary, read_bytes
from pipeline.storage.reading import table_files
from pipeline.storage.schema import DEAD_LETTERS, SCHEMA_VERSION, VIDEOS, table_uri

DEAD_SHOWN = 500
"""Dead letters that are read, at most."""

_READERS = 16  # files read at the same time; a bucket needs many, each waits for an answer
_AT_ONCE = 1024  # tables in memory before they are joined

# What the page of the run needs of each video. Whole rows of a large archive would be too much.
_COLUMNS = (
    "video_id", "relative_path", "status", "error", "frames_decoded", "frames_tracked",
    "frames_encoded", "video_s", "num_tracks", "quality_mean", "quality_p05", "quality_p50",
    "quality_p95", "low_quality_share", "decode_wait_s", "encode_s", "step_s", "write_s",
    "frames_per_second", "cut_times_s", "repairs",
)  # fmt: skip


class NoRunError(ValueError):
    """The folder holds no run of `vsdmot track`, or one of another version."""


@dataclass(frozen=True, slots=True)
class RunTables:
    """A run, finished or not.

    Attributes:
        output: its folder or URL.
        record: `run.json`.
        videos: rows of `videos`, with the columns for the page of the run, by path in the archive.
        dead: number of dead letters of videos that have no row there.
        letters: rows of the first of these, by path.
        listed: files in the manifest; None while the archive is being listed.
    """

    output: str
    record: dict[str, Any]
    videos: pa.Table
    dead: int
    letters: pa.Table
    listed: int | None

    @property
    def left(self) -> int | None:
        """Files without a result yet; None if it is not known how many there are."""
        if self.listed is None:
            return None
        return max(0, self.listed - len(self.videos) - self.dead)

    @property
    def low_quality_below(self) -> float:
        """Frames of lower quality count as low in this run."""
        return float(self.record["deciding"]["low_quality_below"])


def read_run(output: str) -> RunTables:
    """Read a run, compacted or not, also while it goes on.

    Raises:
        NoRunError: The folder has no record of a tracking run, or one of another version.
        StorageError: The output cannot be reached.
    """
    output = output.rstrip("/")
    record = read_record(output)
    dead = list_stems(f"{output}/dead_letters")
    schema = pa.schema([VIDEOS.field(name) for name in _COLUMNS])
    videos = read_rows(table_files(output, "videos"), schema)
    # A video that two runs disagreed about has both; its row counts.
    dead.difference_update(videos["video_id"].to_pylist())
    shown = sorted(dead)[:DEAD_SHOWN]
    letters = read_rows([table_uri(output, "dead_letters", name) for name in shown], DEAD_LETTERS)
    return RunTables(
        output, record, videos.sort_by("relative_path"), len(dead),
        letters.sort_by("relative_path"), listed_files(output),
    )  # fmt: skip


def read_record(output: str) -> dict[str, Any]:
    """The record of a run, `run.json`; errors as of `read_run`."""
    uri = f"{output}/run.json"
    if not exists(uri):
        raise NoRunError(
            f"{output}: there is no run.json here; give the output of a run, or track an archive "
            f"into it first: vsdmot track INPUT {output}"
        )
    try:
        record: dict[str, Any] = json.loads(read_bytes(uri))
    except ValueError as error:
        raise NoRunError(f"{uri} cannot be read: {error}; track into another folder") from error
    if record.get("job") != "track":
        raise NoRunError(f"{output} holds a run of {record.get('job')}, not of vsdmot track")
    if record.get("schema_version") != SCHEMA_VERSION:
        raise NoRunError(
            f"{output} holds tables of schema version {record.get('schema_version')}, this is "
            f"{SCHEMA_VERSION}; track the archive again into another folder"
        )
    return record


def listed_files(output: str) -> int | None:
    """Files in the manifest. Beside a finished one there are parts of a run that still lists."""
    if set(iter_stems(f"{output}/manifest")) != {"manifest"}:
        return None
    with open_binary(table_uri(output, "manifest", "manifest")) as file:
        return int(pq.ParquetFile(file).metadata.num_rows)


def read_rows(uris: Sequence[str], schema: pa.Schema) -> pa.Table:
    """The rows of files, in one table of this schema."""
    parts = [schema.empty_table()]
    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(uris), _AT_ONCE):
            read = pool.map(lambda uri: _file(uri, schema), uris[start : start + _AT_ONCE])
            # A table of one row takes kilobytes; joined, a row takes as much as it holds.
            parts.append(pa.concat_tables(read).combine_chunks())
    return pa.concat_tables(parts)


def _file(uri: str, schema: pa.Schema) -> pa.Table:
    try:
        with open_binary(uri) as file:
            table = pq.ParquetFile(file).read(schema.names, use_threads=False)
            return table if table.schema.equals(schema) else table.cast(schema)
    except (pa.ArrowInvalid, OSError) as error:
        raise StorageError(
            f"{uri} cannot be read as Parquet: {error}; remove it, then track again"
        ) from error
