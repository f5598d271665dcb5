"""What the headers of files say: a video, no video, or that storage failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from pipeline.archive.in_order import in_order
from pipeline.storage.errors import StorageError
from pipeline.storage.files import ArchiveFile, content_identity
from pipeline.storage.identity import video_id
from pipeline.video.info import VideoInfo
from pipeline.video.probe import ProbeError, probe


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
class Unread:
    """A file on which storage failed, with the reason. The next run tries it again."""

    relative_path: str
    reason: str


Surveyed = VideoInfo | Unreadable | Unread


def survey(
    files: Iterable[ArchiveFile | Unread],
    threads: int,
    probe_file: Callable[[ArchiveFile], VideoInfo] = probe,
) -> Iterator[Surveyed]:
    """Read the header of every file, in the given order; yields a value for bad files too.

    Args:
        files: The files of the archive, and places that storage failed on.
        threads: Number of headers read at once.
        probe_file: Reads one header.
    """

    def read(file: ArchiveFile | Unread) -> Surveyed:
        return file if isinstance(file, Unread) else read_header(file, probe_file)

    return in_order(read, files, threads)


def read_header(
    file: ArchiveFile, probe_file: Callable[[ArchiveFile], VideoInfo] = probe
) -> Surveyed:
    """What the header of one file says."""
    try:
        # So that the probe does not read the file for its identity again.
        file = replace(file, identity=content_identity(file))
        return probe_file(file)
    except ProbeError as error:
        identifier = video_id(file.relative_path, content_identity(file))
        return unreadable(file, identifier, str(error), error.kind)
    except StorageError as error:
        return Unread(file.relative_path, str(error))


def unreadable(file: ArchiveFile, identifier: str, error: str, kind: str = "input") -> Unreadable:
    """The value for a file that is not a readable video."""
    return Unreadable(identifier, file.uri, file.relative_path, file.size, error, kind)
