"""The index of compacted tables: which large files count, and which videos are in them.

`vsdmot compact` merges the files of finished videos into *sets*: one file of each table with the
rows of the same videos, ``compacted/<table>/<path>.parquet``. Which sets count is in the newest
commit, ``compacted/<number>.json``, which is written once and never changed. So all tables change
at one moment, and files that no commit names do not count.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow.parquet as pq

from pipeline.storage import files as storage
from pipeline.storage.errors import StorageError
from pipeline.storage.schema import SCHEMA_VERSION

MERGED = ("tracks", "frames", "seams", "track_summary", "videos")
"""Tables with a file for each video, which are merged."""

_FORMAT = 1
_IDS_AT_ONCE = 65_536
_TRIES = 5


@dataclass(frozen=True, slots=True)
class CompactedSet:
    """Files with the rows of the same videos, one of each table in `MERGED`.

    Attributes:
        path: Path of each file below the folder of its table, without ``.parquet``.
        partition: Value of the key that the sets are partitioned by; "" without one.
        first, last: Least and greatest video_id.
        videos: Number of videos.
        bytes: Size of the largest of the files.
    """

    path: str
    partition: str
    first: str
    last: str
    videos: int
    bytes: int

    def uri(self, output: str, table: str) -> str:
        """Path or URL of the file of one table."""
        return f"{compacted_folder(output)}/{table}/{self.path}.parquet"


@dataclass(frozen=True, slots=True)
class Commit:
    """One state of the compacted tables.

    Attributes:
        number: Counts the commits from 1.
        run: Random name of the run that wrote it.
        partition: Kind of key that the sets are partitioned by.
        sets: All sets that count.
    """

    number: int
    run: str
    partition: str
    sets: tuple[CompactedSet, ...]

    def encode(self) -> bytes:
        """The content of its file."""
        record = {"format": _FORMAT, "schema_version": SCHEMA_VERSION, **asdict(self)}
        return json.dumps(record).encode()


def compacted_folder(output: str) -> str:
    """The folder of the commits and of the merged files."""
    return f"{output.rstrip('/')}/compacted"


def commit_uri(output: str, number: int) -> str:
    """Path or URL of a commit."""
    return f"{compacted_folder(output)}/{number:08d}.json"


def commit_numbers(output: str) -> list[int]:
    """Numbers of the commits that are there, least first."""
    stems = storage.list_stems(compacted_folder(output), ".json")
    return sorted(int(stem) for stem in stems if stem.isdigit())


def newest_commit(output: str) -> Commit | None:
    """The newest commit; None if nothing was compacted.

    Raises:
        StorageError: The commit cannot be read, or is of another version of this project.
    """
    for attempt in range(_TRIES):
        numbers = commit_numbers(output)
        if not numbers:
            return None
        uri = commit_uri(output, numbers[-1])
        try:
            return _decoded(json.loads(storage.read_bytes(uri)), uri)
        except StorageError as error:
            # A newer commit may have replaced it since it was listed.
            if not is_missing(error) or attempt == _TRIES - 1:
                raise
    return None


def compacted_ids(output: str) -> Iterator[str]:
    """Yield the ids of all videos whose tables are merged, in no particular order.

    Files are read one after the other, and a few thousand ids at once, so memory does not grow.

    Raises:
        StorageError: The output cannot be read.
    """
    commit = newest_commit(output)
    if commit is not None:
        yield from commit_ids(output, commit)


def commit_ids(output: str, commit: Commit) -> Iterator[str]:
    """As `compacted_ids`, of one commit."""
    for each in commit.sets:
        uri = each.uri(output, "videos")
        with storage.open_binary(uri) as source:
            for batch in pq.ParquetFile(source).iter_batches(_IDS_AT_ONCE, columns=["video_id"]):
                yield from batch.column(0).to_pylist()


def is_missing(error: StorageError) -> bool:
    """Whether an error means that the file is not there."""
    return isinstance(error.__cause__, FileNotFoundError)


def _decoded(record: dict[str, Any], uri: str) -> Commit:
    if record.get("format") != _FORMAT or record.get("schema_version") != SCHEMA_VERSION:
        raise StorageError(
            f"cannot read {uri}: it has format {record.get('format')} and schema version "
            f"{record.get('schema_version')}, this version of vsdmot reads {_FORMAT} and "
            f"{SCHEMA_VERSION}; use the version that wrote it"
        )
    sets = tuple(CompactedSet(**item) for item in record["sets"])
    return Commit(record["number"], record["run"], record["partition"], sets)
