"""Videos of an archive: each header is read once and kept in the manifest of the output."""

from __future__ import annotations

import os
from collections.abc import Callable, Set
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.archive.dead_letters import write_dead_letter
from pipeline.archive.plan import Unreadable, manifest_row, manifest_rows, survey
from pipeline.storage import files as storage
from pipeline.storage.errors import StorageError
from pipeline.storage.files import ArchiveFile
from pipeline.storage.schema import (
    MANIFEST,
    SCHEMA_VERSION,
    mask_secrets,
    rows_table,
    table_uri,
    to_parquet_bytes,
)
from pipeline.video.headers import HeaderReader
from pipeline.video.info import VideoInfo
from pipeline.video.limits import Limits

_HEADER_DEADLINE_S = 300.0  # for one header, with slow storage and retries


@dataclass(frozen=True, slots=True)
class Archive:
    """The videos of an archive, and the files that are not videos or could not be read."""

    videos: list[VideoInfo]
    unreadable: list[Unreadable]
    unread: dict[str, str]
    """Reason why storage failed on a file, by path below the archive. The next run tries again."""
    manifest: bytes
    """The manifest as the bytes of its Parquet file."""

    @property
    def ids(self) -> set[str]:
        """The ids of all files found."""
        return {v.video_id for v in self.videos} | {u.video_id for u in self.unreadable}


def find_videos(
    root: str, output: str, progress: Callable[[int], object] = lambda found: None
) -> list[ArchiveFile]:
    """List the files of an archive, without those in the output folder.

    Args:
        root: The archive.
        output: The output folder.
        progress: Called with the number of files seen, after every thousand.

    Raises:
        StorageError: The archive cannot be listed, or has no video.
    """
    # Listed local paths are absolute; URLs start as the root was given.
    results = (output if "://" in output else os.path.abspath(output)).rstrip("/") + "/"
    files = [
        file for file in storage.list_videos(root, progress) if not file.uri.startswith(results)
    ]
    if not files:
        raise StorageError(
            f"no video in {mask_secrets(root)} or a folder below it; a video ends in one of "
            f"{', '.join(sorted(storage.VIDEO_EXTENSIONS))}; check the path"
        )
    return files


def read_archive(
    files: list[ArchiveFile],
    output: str,
    *,
    recorded: Set[str],
    threads: int,
    advance: Callable[[], None],
    limits: Limits | None = None,
    again: bool = False,
    conditional: bool = True,
) -> Archive:
    """Read headers, write the manifest, and a dead letter for each file that is not a video.

    Args:
        files: From `find_videos`.
        output: The output folder. Headers in the manifest of an earlier run are not read again.
        recorded: Ids that are done or have a dead letter.
        threads: Number of headers read at once.
        advance: Called after each file.
        limits: Bounds on a video.
        again: Whether to retry headers that could not be read before.
        conditional: Whether the output can refuse to create a file that exists.

    Raises:
        StorageError: No file can be read, or the output cannot be written.
    """
    limits = limits or Limits()
    uri = table_uri(output, "manifest", "manifest")
    known = manifest_rows(_stored(uri)) if storage.exists(uri) else {}
    if again:
        known = {key: row for key, row in known.items() if row["error"] is None}
    videos, unreadable, rows = [], [], []
    failures: list[StorageError] = []
    unread: dict[str, str] = {}

    def failed(file: ArchiveFile, error: StorageError) -> None:
        failures.append(error)
        unread[file.relative_path] = str(error)
        advance()

    with HeaderReader(threads, limits, _HEADER_DEADLINE_S) as reader:
        for item in survey(files, known, threads, reader.probe, failed):
            advance()
            rows.append(manifest_row(item))
            refusal = limits.refusal(item) if isinstance(item, VideoInfo) else None
            if isinstance(item, Unreadable):
                unreadable.append(item)
            elif refusal is not None:  # read by an earlier run with wider limits
                error = f"refused: {refusal}"
                unreadable.append(
                    Unreadable(item.video_id, item.uri, item.relative_path, item.size_bytes, error)
                )
            else:
                videos.append(item)
    if failures and not rows:
        raise failures[0]
    for dead in unreadable:
        if dead.video_id not in recorded:
            write_dead_letter(
                output,
                video_id=dead.video_id,
                uri=dead.uri,
                relative_path=dead.relative_path,
                stage="probe",
                kind=dead.kind,
                message=dead.error,
                conditional=conditional,
            )
    manifest = to_parquet_bytes(rows_table(rows, MANIFEST))
    storage.write_atomic(uri, manifest)
    return Archive(videos, unreadable, unread, manifest)


def _stored(uri: str) -> pa.Table:
    table = pq.read_table(pa.BufferReader(storage.read_bytes(uri)))
    stored = (table.schema.metadata or {}).get(b"schema_version", b"").decode()
    return table if stored == str(SCHEMA_VERSION) else table.slice(0, 0)
