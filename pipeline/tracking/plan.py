"""From the files of an archive to the segments of work: read headers, drop what is done, order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice

import pyarrow as pa

from pipeline.storage.errors import StorageError
from pipeline.storage.files import ArchiveFile, content_identity
from pipeline.storage.identity import video_id
from pipeline.storage.schema import MANIFEST
from pipeline.video.info import VideoInfo
from pipeline.video.probe import ProbeError, probe

_PENDING_PER_THREAD = 16


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file of the archive that holds no video we can read, and why."""

    video_id: str
    uri: str
    relative_path: str
    size_bytes: int
    error: str
    kind: str = "input"


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of one video that one worker tracks: here, the whole video."""

    info: VideoInfo

    @property
    def video_id(self) -> str:
        """The video this segment belongs to."""
        return self.info.video_id


def survey(
    files: Iterable[ArchiveFile],
    known: Mapping[str, Mapping[str, object]],
    threads: int,
    probe_file: Callable[[ArchiveFile], VideoInfo] = probe,
    unread: Callable[[ArchiveFile, StorageError], object] | None = None,
) -> Iterator[VideoInfo | Unreadable]:
    """Read the header of every file, in the order given; what is no video is a value too.

    Args:
        files: The files of the archive.
        known: Rows of an earlier manifest by video id: the same content is not probed twice.
        threads: Headers read at once; waiting for storage is most of the work.
        probe_file: Reads one header.
        unread: Told of each file that storage fails on, which is then left out.

    Raises:
        StorageError: A file cannot be read, and nobody wants to be told. That says nothing of it,
            so it is no dead letter.
    """

    def look(file: ArchiveFile) -> VideoInfo | Unreadable | None:
        try:
            file = replace(file, identity=content_identity(file))  # not read again by the probe
            identifier = video_id(file.relative_path, content_identity(file))
            row = known.get(identifier)
            if row is not None:
                return _from_manifest(file, row)
            return probe_file(file)
        except ProbeError as error:
            return _unreadable(file, identifier, str(error), error.kind)
        except StorageError as error:
            if unread is None:
                raise
            unread(file, error)
            return None

    remaining = iter(files)
    with ThreadPoolExecutor(threads, thread_name_prefix="probe") as pool:
        # A bounded number of pending calls: an archive may hold millions of files.
        first = islice(remaining, threads * _PENDING_PER_THREAD)
        pending = deque(pool.submit(look, file) for file in first)
        while pending:
            item = pending.popleft().result()
            if item is not None:
                yield item
            pending.extend(pool.submit(look, file) for file in islice(remaining, 1))


def plan(infos: Iterable[VideoInfo], done: set[str]) -> list[Segment]:
    """The work that is left, longest video first, so that no long one is left for the end.

    A video whose length the header does not tell may be the longest: it goes to the front.
    """

    def order(segment: Segment) -> tuple[float, str]:
        frames = expected_frames(segment.info)
        return (float("-inf") if frames is None else -frames, segment.video_id)

    return sorted((Segment(info) for info in infos if info.video_id not in done), key=order)


def expected_frames(info: VideoInfo) -> int | None:
    """Frames by the header's count, else by duration and rate, else None."""
    if info.frames_expected is not None:
        return info.frames_expected
    if info.duration_s is not None and info.fps is not None:
        return round(info.duration_s * info.fps)
    return None


def manifest_row(found: VideoInfo | Unreadable) -> dict[str, object]:
    """One row of the manifest."""
    return {name: value for name, value in asdict(found).items() if name in MANIFEST.names}


def manifest_rows(table: pa.Table) -> dict[str, dict[str, object]]:
    """The rows of a stored manifest by video id."""
    return {str(row["video_id"]): row for row in table.to_pylist()}


def _from_manifest(file: ArchiveFile, row: Mapping[str, object]) -> VideoInfo | Unreadable:
    # Path and URI come from the file: in the table secrets are masked, and roots may have moved.
    if row["error"] is not None:
        return _unreadable(file, str(row["video_id"]), str(row["error"]))
    values = {field.name: row[field.name] for field in fields(VideoInfo)}
    values |= {"uri": file.uri, "relative_path": file.relative_path}
    return VideoInfo(**values)  # type: ignore[arg-type]


def _unreadable(file: ArchiveFile, identifier: str, error: str, kind: str = "input") -> Unreadable:
    return Unreadable(identifier, file.uri, file.relative_path, file.size, error, kind)
