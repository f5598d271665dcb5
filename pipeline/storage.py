"""Files of an archive and of a run, on a local disk or in a bucket, through fsspec.

A plain path is a local file whatever characters it holds; `scheme://…` is handed to fsspec.
Every failure is a `StorageError` that names the path, the reason and the remedy.
"""

import errno
import hashlib
import os
import re
import secrets
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

# fmt: off
VIDEO_EXTENSIONS = frozenset({
    ".3g2", ".3gp", ".264", ".265", ".asf", ".avi", ".dav", ".divx", ".dv", ".f4v", ".flv",
    ".h264", ".h265", ".hevc", ".ivf", ".m1v", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv",
    ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm",
    ".wmv", ".y4m",
})
# fmt: on
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_SAMPLE = 64 * 1024  # bytes hashed at the head, the middle and the tail of a local file
_SLUG = 40  # characters of a file's name kept in its video_id


class StorageError(RuntimeError):
    """A path cannot be listed, read or written; the message says what to do about it."""


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """One file of an archive as its listing shows it.

    Attributes:
        uri: absolute local path, or `scheme://…`.
        relative_path: POSIX path below the archive's root.
        size: bytes.
        etag: the store's own content tag, None where there is none (local disks).
    """

    uri: str
    relative_path: str
    size: int
    etag: str | None


def list_videos(root: str) -> Iterator[ArchiveFile]:
    """List the videos below a folder or bucket prefix, sorted by relative path.

    Files count by their extension, in either case. Links to folders are followed once. A root
    that is itself a file is the archive of that one file, whatever its extension.

    Raises:
        StorageError: the root or a folder in it is missing or unreadable, the bucket does not
            exist, there are no credentials, or a name is not UTF-8. Raised by the call itself.
    """
    fs, path = _resolve(root)
    with _explained(root, "list"):
        top = fs.info(path)
        if top["type"] == "file":
            files = [_archive_file(fs, top, PurePosixPath(path).name)]
        else:
            base = top["name"].rstrip("/") + "/"
            files = [
                _archive_file(fs, entry, entry["name"].removeprefix(base))
                for entry in _walk(fs, path)
                if PurePosixPath(entry["name"]).suffix.lower() in VIDEO_EXTENSIONS
            ]
    for file in files:
        try:
            file.uri.encode()
        except UnicodeEncodeError as error:
            raise StorageError(
                f"cannot list {root}: the file name {os.fsencode(file.relative_path)!r} is not "
                "UTF-8, so no table could hold it; rename the file (convmv does whole folders)"
            ) from error
    return iter(sorted(files, key=lambda file: file.relative_path))


def open_binary(uri: str) -> BinaryIO:
    """Open a file for reading: seekable, by range requests where it is remote."""
    fs, path = _resolve(uri)
    with _explained(uri, "read"):
        return cast(BinaryIO, fs.open(path, "rb"))


def read_bytes(uri: str) -> bytes:
    """Return a whole file."""
    fs, path = _resolve(uri)
    with _explained(uri, "read"):
        return cast(bytes, fs.cat_file(path))


def exists(uri: str) -> bool:
    """Return whether there is a file or folder; a store that does not answer is an error."""
    fs, path = _resolve(uri)
    with _explained(uri, "look up"):
        try:
            fs.info(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


def list_stems(folder_uri: str, suffix: str = ".parquet") -> set[str]:
    """Return the names, without `suffix`, of the files of a folder; empty if it is missing."""
    fs, path = _resolve(folder_uri)
    with _explained(folder_uri, "list"):
        try:
            entries = fs.ls(path, detail=False)
        except FileNotFoundError:
            return set()
    names = (entry.rsplit("/", 1)[-1] for entry in entries)
    return {name.removesuffix(suffix) for name in names if name.endswith(suffix)}


def write_atomic(uri: str, data: bytes) -> None:
    """Write a whole file or nothing, replacing what was there; folders are made as needed."""
    fs, path = _resolve(uri)
    with _explained(uri, "write"):
        if isinstance(fs, LocalFileSystem):
            with _temporary(path, data) as temporary:
                os.replace(temporary, path)
        else:
            fs.pipe_file(path, data)


def create_if_absent(uri: str, data: bytes) -> bool:
    """Write a whole file unless there is one already; of many writers exactly one succeeds.

    Returns:
        True if this call created the file, False if it was there. A store that retries a
        request by itself may answer False to the call that did create it: when it matters,
        compare the content.
    """
    fs, path = _resolve(uri)
    with _explained(uri, "write"):
        try:
            if isinstance(fs, LocalFileSystem):
                _link_new(path, data)
            else:
                fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
    return True


def content_identity(file: ArchiveFile) -> str:
    """Return a short text that changes when the file's content does.

    Size and etag where the store has one; else size and a hash of the head, middle and tail.
    """
    if file.etag is not None:
        return f"{file.size}-{file.etag}"
    digest = hashlib.sha256()
    with open_binary(file.uri) as source, _explained(file.uri, "read"):
        for start in (0, (file.size - _SAMPLE) // 2, file.size - _SAMPLE):
            source.seek(max(0, start))
            digest.update(source.read(_SAMPLE))
    return f"{file.size}-{digest.hexdigest()[:32]}"


def video_id(relative_path: str, identity: str) -> str:
    """Return the stable name of a video, safe as a file name anywhere: slug-hash."""
    stem = unicodedata.normalize("NFKD", PurePosixPath(relative_path).stem)
    slug = re.sub(r"[^A-Za-z0-9]+", "-", stem.encode("ascii", "ignore").decode())[:_SLUG]
    digest = hashlib.sha256(f"{relative_path}\0{identity}".encode("utf-8", "surrogateescape"))
    return f"{slug.strip('-') or 'video'}-{digest.hexdigest()[:12]}"


def _resolve(uri: str) -> tuple[Any, str]:
    """Return the file system of a URI and the path in it.

    fsspec's own parser would split a local name that holds `::`, so the scheme is read here.
    Listings are never cached: other workers write to the same folders.
    """
    scheme = _SCHEME.match(uri)
    if not uri:
        raise StorageError("the path is empty; give a folder or a URL such as s3://bucket/prefix")
    try:
        if scheme is None or scheme[1] in ("file", "local"):
            fs: Any = fsspec.filesystem("file")
        else:
            fs = fsspec.filesystem(scheme[1].lower(), use_listings_cache=False)
    except (ValueError, ImportError) as error:
        raise StorageError(
            f"cannot open {uri}: {error}; use a local path or s3://, or install the fsspec "
            "package of that store"
        ) from error
    return fs, fs._strip_protocol(uri)


def _walk(fs: Any, folder: str) -> Iterator[dict[str, Any]]:
    """Yield the files below a folder; unlike fs.find, an unreadable folder is an error."""
    if not isinstance(fs, LocalFileSystem):
        yield from fs.find(folder, detail=True).values()
        return
    pending, seen = [folder], set()
    while pending:
        current = pending.pop()
        real = os.path.realpath(current)
        if real in seen:
            continue
        seen.add(real)
        for entry in fs.ls(current, detail=True):
            if entry["type"] == "directory" or (entry["islink"] and fs.isdir(entry["name"])):
                pending.append(entry["name"])
            elif entry["type"] == "file" or entry["islink"]:  # no pipes, sockets, devices
                yield entry


def _archive_file(fs: Any, entry: dict[str, Any], relative_path: str) -> ArchiveFile:
    local = isinstance(fs, LocalFileSystem)
    uri = entry["name"] if local else fs.unstrip_protocol(entry["name"])
    etag = entry.get("ETag") or entry.get("etag")
    return ArchiveFile(uri, relative_path, int(entry["size"] or 0), etag and etag.strip('"'))


@contextmanager
def _temporary(path: str, data: bytes) -> Iterator[str]:
    """Write data to a new file beside `path`, on disk before the body runs; gone after it.

    Not `tempfile`: its files are readable by their owner alone, and results are shared.
    """
    folder, name = os.path.split(path)
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError as error:  # must not look like the answer of a create
        raise NotADirectoryError(errno.ENOTDIR, "not a folder", error.filename) from error
    temporary = os.path.join(folder, f".{name[:100]}.{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as target:
            target.write(data)
            target.flush()
            os.fsync(target.fileno())
        yield temporary
    finally:
        with suppress(FileNotFoundError):
            os.remove(temporary)


def _link_new(path: str, data: bytes) -> None:
    """Create a local file whole: a link to a finished one, which fails if the name is taken."""
    with _temporary(path, data) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            # NFS may lose the answer to a link that it made: two names mean it is ours.
            if os.stat(temporary).st_nlink != 2:
                raise


@contextmanager
def _explained(uri: str, action: str) -> Iterator[None]:
    """Turn what a file system raises into a StorageError with a remedy."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        # botocore's errors share no base with OSError, and other stores bring their own.
        reason = str(error) or type(error).__name__
        raise StorageError(f"cannot {action} {uri}: {reason}; {_remedy(error, uri)}") from error


def _remedy(error: Exception, uri: str) -> str:
    remote = _SCHEME.match(uri) is not None and not uri.startswith(("file:", "local:"))
    kind, number = type(error).__name__, getattr(error, "errno", None)
    if "Credential" in kind or "TokenRetrieval" in kind or "SSOToken" in kind:
        return (
            "give credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, "
            "or a role on the machine"
        )
    if isinstance(error, PermissionError):
        if remote:
            return "check that the credentials in use may list, read and write this bucket"
        return f"check the rights of user {os.getuid()} on it and on the folders above it"
    if isinstance(error, FileNotFoundError):
        if remote:
            return "check the bucket and the prefix, and AWS_ENDPOINT_URL for a private store"
        return "check the spelling, and that the disk is mounted on this machine"
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "free some space, or choose an output on another disk"
    if number in (errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK):
        return "this disk cannot link files; choose an output on another disk"
    if isinstance(error, NotADirectoryError):
        return "a file stands where a folder should be; choose another path"
    if number == errno.EROFS:
        return "the disk is read-only; choose an output on another disk"
    return "check that it can be reached from this machine"
