"""Files of an archive and of a run, on a local disk or in a bucket, through fsspec.

A path without a scheme is a local file; `scheme://…` is opened by fsspec. Transient errors are
retried (`errors.with_retries`). Every other failure is a `StorageError` that names the path, the
reason and the remedy.
"""

import errno
import hashlib
import io
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import chain, takewhile
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import glob_translate

from pipeline.storage import file_systems
from pipeline.storage.errors import StorageError, already_exists, explained
from pipeline.storage.file_systems import RetryingFile, resolve, retried, walk
from pipeline.storage.local import link_new, replace_file

# fmt: off
VIDEO_EXTENSIONS = frozenset({
    ".3g2", ".3gp", ".264", ".265", ".asf", ".avi", ".dav", ".divx", ".dv", ".f4v", ".flv",
    ".h264", ".h265", ".hevc", ".ivf", ".m1v", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv",
    ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm",
    ".wmv", ".y4m",
})
# fmt: on
_SAMPLE = 64 * 1024  # bytes hashed at the head, the middle and the tail of a local file
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS)
_PART = 16 * 1024 * 1024  # bytes of a part of an upload; two are in memory at once


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """One file of an archive, from its listing.

    Attributes:
        uri: absolute local path, or `scheme://…`.
        relative_path: POSIX path below the archive's root.
        size: bytes.
        etag: the store's content tag; None where there is none (local disks).
        identity: its `content_identity` if it is known already.
        modified_ns: time of the last change, in nanoseconds; None where there is an etag.
    """

    uri: str
    relative_path: str
    size: int
    etag: str | None
    identity: str | None = None
    modified_ns: int | None = field(default=None, compare=False)


def list_videos(
    root: str,
    failed: Callable[[str, StorageError], object] | None = None,
    pattern: str = "**",
) -> Iterator[ArchiveFile]:
    """List the videos below a folder or bucket prefix, in the order of their relative paths.

    The listing goes on while its files are taken, a page of a bucket or a folder of a disk at a
    time. A file is a video by its extension, in upper or lower case. Links to folders are followed
    once. If the root is a file, the archive is that one file, whatever its extension.

    Args:
        root: A folder, a file or a URL.
        failed: Called with each place below the root that cannot be listed, and each name that is
            not UTF-8; they are left out. None: the error is raised by the iterator.
        pattern: Files by their path below the root: `*` and `?` stand for characters of a name,
            `**` for folders.

    Raises:
        StorageError: The root is missing or unreadable, the bucket does not exist, or there are no
            credentials. Raised by this call, not by the iterator.
    """
    fs, path = resolve(root)
    with explained(root, "list"):
        top = retried(fs, lambda: fs.info(path))
        if top["type"] == "file":
            return iter([_archive_file(fs, top, PurePosixPath(path).name)])
        found = _below(fs, root, path, top["name"].rstrip("/") + "/", failed, pattern)
        first = next(found, None)
    return iter(()) if first is None else chain([first], found)


def look_up(uri: str, relative_path: str) -> ArchiveFile:
    """A file that is not from a listing.

    Raises:
        StorageError: It is not there, or is no file.
    """
    fs, path = resolve(uri)
    with explained(uri, "read"):
        entry = retried(fs, lambda: fs.info(path))
        if entry["type"] == "directory":
            raise StorageError(f"cannot read {uri}: it is a folder; name the files in it")
    if "mtime" in entry and isinstance(fs, LocalFileSystem):
        entry["mtime_ns"] = os.stat(path).st_mtime_ns
    return _archive_file(fs, entry, relative_path)


def open_binary(uri: str) -> BinaryIO:
    """Open a file for reading, seekable; a remote one is read by range requests of 4 MiB."""
    fs, path = resolve(uri)
    with explained(uri, "read"):
        if isinstance(fs, LocalFileSystem):
            return cast(BinaryIO, fs.open(path, "rb"))
        return cast(BinaryIO, RetryingFile(fs, path))


def read_bytes(uri: str) -> bytes:
    """Return a whole file."""
    fs, path = resolve(uri)
    with explained(uri, "read"):
        return cast(bytes, retried(fs, lambda: fs.cat_file(path)))


def exists(uri: str) -> bool:
    """Return whether a file or folder exists; an unreachable store is an error."""
    fs, path = resolve(uri)
    with explained(uri, "look up"):
        try:
            retried(fs, lambda: fs.info(path))
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


def list_stems(folder_uri: str, suffix: str = ".parquet") -> set[str]:
    """Return the names, without `suffix`, of the files in a folder; empty if it is missing."""
    return set(iter_stems(folder_uri, suffix))


def iter_stems(folder_uri: str, suffix: str = ".parquet") -> Iterator[str]:
    """Yield the names, without `suffix`, of files and folders in a folder; none if it is missing.

    Names come as they are listed, in any order, so that a folder of millions takes no memory.

    Raises:
        StorageError: The folder cannot be listed. Raised by the iterator.
    """
    fs, path = resolve(folder_uri)
    with explained(folder_uri, "list"):
        for name in file_systems.names(fs, path):
            if name.endswith(suffix):
                yield name.removesuffix(suffix)


def remove(uri: str) -> None:
    """Remove a file, if it exists."""
    fs, path = resolve(uri)
    with explained(uri, "remove"), suppress(FileNotFoundError):
        retried(fs, lambda: fs.rm_file(path))


def write_atomic(uri: str, data: bytes) -> None:
    """Write a file atomically, replacing an existing one; folders are made as needed."""
    fs, path = resolve(uri)
    with explained(uri, "write"):
        if isinstance(fs, LocalFileSystem):
            replace_file(path, io.BytesIO(data))
        else:
            retried(fs, lambda: fs.pipe_file(path, data))


def publish(uri: str, source: BinaryIO) -> None:
    """As `write_atomic`, from an open file on this machine's disk; it need not fit into memory.

    Args:
        uri: The file to write.
        source: Open for reading, with a descriptor; read from its start.
    """
    fs, path = resolve(uri)
    with explained(uri, "write"):
        if isinstance(fs, LocalFileSystem):
            source.seek(0)
            replace_file(path, source)
            return
        # S3 joins the parts to a file when the last one is there. Two parts are in memory at once;
        # s3fs would hold ten of 50 MiB.
        options = {"chunksize": _PART, "max_concurrency": 2} if hasattr(fs, "call_s3") else {}

        def put() -> None:
            source.seek(0)
            fs.put_file(f"/dev/fd/{source.fileno()}", path, **options)

        retried(fs, put)


def create_if_absent(uri: str, data: bytes, conditional: bool = True) -> bool:
    """Write a file atomically unless it exists; of several writers exactly one succeeds.

    Args:
        uri: The file.
        data: Its content.
        conditional: The result of `creates_once` for the folder. If False, the file is looked up
            and then written, so of two writers at the same moment the later one wins.

    Returns:
        True if this call wrote the file, False if it existed.
    """
    fs, path = resolve(uri)
    if not conditional:
        if exists(uri):
            return False
        write_atomic(uri, data)
        return True
    try:
        with explained(uri, "write"):
            if isinstance(fs, LocalFileSystem):
                link_new(path, io.BytesIO(data))
            else:
                retried(fs, lambda: fs.pipe_file(path, data, mode="create"))
    except StorageError as error:
        if error.__cause__ is None or not already_exists(error.__cause__):
            raise
        # If the first answer was lost, the retry finds the file that this call has written.
        return not isinstance(fs, LocalFileSystem) and read_bytes(uri) == data
    return True


def creates_once(folder_uri: str) -> bool:
    """Whether a folder can refuse to create a file that exists; found out with a probe file.

    Disks without hard links and stores without conditional writes cannot do it.

    Raises:
        StorageError: The folder cannot be written.
    """
    uri = f"{folder_uri.rstrip('/')}/.probe-{secrets.token_hex(8)}"
    try:
        try:
            return create_if_absent(uri, b"1") and not create_if_absent(uri, b"2")
        except StorageError as error:
            cause = error.__cause__
            unable = isinstance(cause, NotImplementedError | TypeError | ValueError)
            if not unable and getattr(cause, "errno", None) not in _NO_LINKS:
                raise
            write_atomic(uri, b"3")
            return False
    finally:
        with suppress(StorageError):  # where nothing may be removed, the probe file stays
            remove(uri)


def content_identity(file: ArchiveFile) -> str:
    """Return a short text that changes when the file's content does.

    It is made of size and etag where the store has one, else of size and a hash of 64 KiB each at
    the head, the middle and the tail.
    """
    if file.identity is not None:
        return file.identity
    if file.etag is not None:
        return f"{file.size}-{file.etag}"
    digest = hashlib.sha256()
    with open_binary(file.uri) as source, explained(file.uri, "read"):
        for start in (0, (file.size - _SAMPLE) // 2, file.size - _SAMPLE):
            source.seek(max(0, start))
            digest.update(source.read(_SAMPLE))
    return f"{file.size}-{digest.hexdigest()[:32]}"


def _below(
    fs: Any,
    root: str,
    path: str,
    base: str,
    failed: Callable[[str, StorageError], object] | None,
    pattern: str,
) -> Iterator[ArchiveFile]:
    """The videos below a folder; `base` is its name in a listing, with a slash at the end."""
    matches = re.compile(glob_translate(pattern)).match
    folders = list(takewhile(lambda part: part != "**", pattern.split("/")))
    if len(folders) == pattern.count("/") + 1:  # the last part is a file's name
        folders.pop()

    def enter(folder: str) -> bool:
        parts = folder.removeprefix(base).split("/")
        if len(parts) > len(folders) and "**" not in pattern:
            return False
        return all(map(fnmatchcase, parts, folders))

    with explained(root, "list"):
        for entry in walk(fs, path, enter, failed):
            name = entry["name"].removeprefix(base)
            if PurePosixPath(name).suffix.lower() not in VIDEO_EXTENSIONS or not matches(name):
                continue
            try:
                entry["name"].encode()
            except UnicodeEncodeError:
                error = StorageError(
                    f"cannot list {root}: the file name {os.fsencode(name)!r} is not UTF-8, so no "
                    "table could hold it; rename the file (convmv does whole folders)"
                )
                if failed is None:
                    raise error from None
                failed(repr(os.fsencode(name)), error)
                continue
            yield _archive_file(fs, entry, name)


def _archive_file(fs: Any, entry: dict[str, Any], relative_path: str) -> ArchiveFile:
    local = isinstance(fs, LocalFileSystem)
    uri = entry["name"] if local else fs.unstrip_protocol(entry["name"])
    etag = entry.get("ETag") or entry.get("etag")
    size, modified_ns = int(entry["size"] or 0), entry.get("mtime_ns")
    return ArchiveFile(uri, relative_path, size, etag and etag.strip('"'), modified_ns=modified_ns)
