"""Make segments of the files of an archive: read headers, drop finished videos, sort."""

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
    """A file of the archive that is not a readable video, with the reason as `error`."""

    video_id: str
    uri: str
    relative_path: str
    size_bytes: int
    error: str
    kind: str = "input"


@dataclass(frozen=True, slots=True)
class Segment:
    """The part of one video that one worker tracks. Today it is the whole video."""

    info: VideoInfo

    @property
    def video_id(self) -> str:
        """Id of the video."""
        return self.info.video_id


def survey(
    files: Iterable[ArchiveFile],
    known: Mapping[str, Mapping[str, object]],
    threads: int,
    probe_file: Callable[[ArchiveFile], VideoInfo] = probe,
    unread: Callable[[ArchiveFile, StorageError], object] | None = None,
) -> Iterator[VideoInfo | Unreadable]:
    """Read the header of every file, in the given order; yields a value for bad files too.

    Args:
        files: The files of the archive.
        known: Rows of an earlier manifest by video id. Headers of known files are not read again.
        threads: Number of headers read at once.
        probe_file: Reads one header.
        unread: Called with each file on which storage fails. The file is left out.

    Raises:
        StorageError: Storage fails on a file, and `unread` is None.
    """

    def read_header(file: ArchiveFile) -> VideoInfo | Unreadable | None:
        try:
            file = replace(
                file, identity=content_identity(file)
            )  # so that the probe does not read it again
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
        # The number of pending calls is bounded, because an archive may have millions of files.
        first = islice(remaining, threads * _PENDING_PER_THREAD)
        pending = deque(pool.submit(read_header, file) for file in first)
        while pending:
            item = pending.popleft().result()
            if item is not None:
                yield item
            pending.extend(pool.submit(read_header, file) for file in islice(remaining, 1))


def plan(infos: Iterable[VideoInfo], done: set[str]) -> list[Segment]:
    """Segments of the videos that are not in `done`, longest video first.

    A long video at the end would leave other workers idle. Videos of unknown length come first,
    because each of them may be the longest.
    """

    def order(segment: Segment) -> tuple[float, str]:
        frames = expected_frames(segment.info)
        return (float("-inf") if frames is None else -frames, segment.video_id)

    return sorted((Segment(info) for info in infos if info.video_id not in done), key=order)


def expected_frames(info: VideoInfo) -> int | None:
    """Number of frames by the header, else by duration and frame rate, else None."""
    if info.frames_expected is not None:
        return info.frames_expected
    if info.duration_s is not None and info.fps is not None:
        return round(info.duration_s * info.fps)
    return None


def manifest_row(found: VideoInfo | Unreadable) -> dict[str, object]:
    """One row of the manifest."""
    return {name: value for name, value in asdict(found).items() if name in MANIFEST.names}


def manifest_rows(table: pa.Table) -> dict[str, dict[str, object]]:
    """Rows of a stored manifest by video id."""
    return {str(row["video_id"]): row for row in table.to_pylist()}


def _from_manifest(file: ArchiveFile, row: Mapping[str, object]) -> VideoInfo | Unreadable:
    # Path and URI are those of the file: the table has secrets masked, and the root may have moved.
    if row["error"] is not None:
        return _unreadable(file, str(row["video_id"]), str(row["error"]))
    values = {field.name: row[field.name] for field in fields(VideoInfo)}
    values |= {"uri": file.uri, "relative_path": file.relative_path}
    return VideoInfo(**values)  # type: ignore[arg-type]


def _unreadable(file: ArchiveFile, identifier: str, error: str, kind: str = "input") -> Unreadable:
    return Unreadable(identifier, file.uri, file.relative_path, file.size, error, kind)
