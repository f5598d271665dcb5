"""Files of an archive and of a run, on a local disk or in a bucket, through fsspec.

A plain path is a local file whatever characters it holds; `scheme://…` is handed to fsspec.
What may pass is tried again (`storage_errors.steadily`); every other failure is a `StorageError`
that names the path, the reason and the remedy.
"""

import errno
import hashlib
import io
import os
import re
import secrets
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, TypeVar, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.storage_errors import StorageError, already_there, explained, steadily

T = TypeVar("T")

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
_PAGE = 1000  # keys a request, and files between two reports of a listing
_BLOCK = 4 * 1024 * 1024  # bytes a range request; s3fs would take 50 MiB to look at a header
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS)
_S3_CONFIG = {
    "connect_timeout": 10,
    "read_timeout": 60,
    "retries": {"mode": "standard", "max_attempts": 2},  # `steadily` does the rest
}


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


def list_videos(
    root: str, progress: Callable[[int], object] = lambda found: None
) -> Iterator[ArchiveFile]:
    """List the videos below a folder or bucket prefix, sorted by relative path.

    Files count by their extension, in either case. Links to folders are followed once. A root
    that is itself a file is the archive of that one file, whatever its extension.

    Args:
        root: A folder, a file or a URL.
        progress: Called with the number of files seen, videos or not, as the listing goes on.

    Raises:
        StorageError: the root or a folder in it is missing or unreadable, the bucket does not
            exist, there are no credentials, or a name is not UTF-8. Raised by the call itself.
    """
    fs, path = _resolve(root)
    files = []
    with explained(root, "list"):
        top = _steadily(fs, lambda: fs.info(path))
        if top["type"] == "file":
            files = [_archive_file(fs, top, PurePosixPath(path).name)]
        else:
            base = top["name"].rstrip("/") + "/"
            for seen, entry in enumerate(_walk(fs, path), start=1):
                if PurePosixPath(entry["name"]).suffix.lower() in VIDEO_EXTENSIONS:
                    files.append(_archive_file(fs, entry, entry["name"].removeprefix(base)))
                if seen % _PAGE == 0:
                    progress(seen)
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
    """Open a file for reading: seekable, by range requests of 4 MiB where it is remote."""
    fs, path = _resolve(uri)
    with explained(uri, "read"):
        if isinstance(fs, LocalFileSystem):
            return cast(BinaryIO, fs.open(path, "rb"))
        return cast(BinaryIO, _SteadyFile(fs, path))


def read_bytes(uri: str) -> bytes:
    """Return a whole file."""
    fs, path = _resolve(uri)
    with explained(uri, "read"):
        return cast(bytes, _steadily(fs, lambda: fs.cat_file(path)))


def exists(uri: str) -> bool:
    """Return whether there is a file or folder; a store that does not answer is an error."""
    fs, path = _resolve(uri)
    with explained(uri, "look up"):
        try:
            _steadily(fs, lambda: fs.info(path))
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


def list_stems(folder_uri: str, suffix: str = ".parquet") -> set[str]:
    """Return the names, without `suffix`, of the files of a folder; empty if it is missing."""
    fs, path = _resolve(folder_uri)
    with explained(folder_uri, "list"):
        try:
            entries = _steadily(fs, lambda: fs.ls(path, detail=False))
        except FileNotFoundError:
            return set()
    names = (entry.rsplit("/", 1)[-1] for entry in entries)
    return {name.removesuffix(suffix) for name in names if name.endswith(suffix)}


def remove(uri: str) -> None:
    """Remove a file; it is no error if there is none."""
    fs, path = _resolve(uri)
    with explained(uri, "remove"), suppress(FileNotFoundError):
        _steadily(fs, lambda: fs.rm_file(path))


def write_atomic(uri: str, data: bytes) -> None:
    """Write a whole file or nothing, replacing what was there; folders are made as needed."""
    fs, path = _resolve(uri)
    with explained(uri, "write"):
        if isinstance(fs, LocalFileSystem):
            with _temporary(path, data) as temporary:
                os.replace(temporary, path)
        else:
            _steadily(fs, lambda: fs.pipe_file(path, data))


def create_if_absent(uri: str, data: bytes, conditional: bool = True) -> bool:
    """Write a whole file unless there is one already; of many writers exactly one succeeds.

    Args:
        uri: The file.
        data: Its content.
        conditional: What `creates_once` said of the place. False: the file is looked up, then
            written, so that of two writers at the same moment the later one wins.

    Returns:
        True if the file now holds what this call wrote, False if it was there before.
    """
    fs, path = _resolve(uri)
    if not conditional:
        if exists(uri):
            return False
        write_atomic(uri, data)
        return True
    try:
        with explained(uri, "write"):
            if isinstance(fs, LocalFileSystem):
                _link_new(path, data)
            else:
                _steadily(fs, lambda: fs.pipe_file(path, data, mode="create"))
    except StorageError as error:
        if error.__cause__ is None or not already_there(error.__cause__):
            raise
        # A store that loses an answer is asked again, and then finds our own file in the way.
        return not isinstance(fs, LocalFileSystem) and read_bytes(uri) == data
    return True


def creates_once(folder_uri: str) -> bool:
    """Whether a place can refuse to create a file that is there: probed with a file of its own.

    Disks without hard links and stores without conditional writes cannot, or do not say so.

    Raises:
        StorageError: The place cannot be written at all.
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
        with suppress(StorageError):  # a store where nothing may be removed keeps one byte
            remove(uri)


def content_identity(file: ArchiveFile) -> str:
    """Return a short text that changes when the file's content does.

    Size and etag where the store has one; else size and a hash of the head, middle and tail.
    """
    if file.etag is not None:
        return f"{file.size}-{file.etag}"
    digest = hashlib.sha256()
    with open_binary(file.uri) as source, explained(file.uri, "read"):
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
            name = scheme[1].lower()
            options = {"config_kwargs": _S3_CONFIG} if name in ("s3", "s3a") else {}
            fs = fsspec.filesystem(name, use_listings_cache=False, **options)
    except (ValueError, ImportError) as error:
        raise StorageError(
            f"cannot open {uri}: {error}; use a local path or s3://, or install the fsspec "
            "package of that store"
        ) from error
    return fs, fs._strip_protocol(uri)


def _walk(fs: Any, folder: str) -> Iterator[dict[str, Any]]:
    """Yield the files below a folder; unlike fs.find, an unreadable folder is an error."""
    if hasattr(fs, "call_s3"):
        yield from _bucket_pages(fs, folder)
        return
    if not isinstance(fs, LocalFileSystem):
        yield from _steadily(fs, lambda: fs.find(folder, detail=True)).values()
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


def _bucket_pages(fs: Any, folder: str) -> Iterator[dict[str, Any]]:
    """Yield a bucket's objects page by page: s3fs's own listings hold all of them at once."""
    bucket, prefix, _ = fs.split_path(folder)
    folder_key = f"{prefix.rstrip('/')}/" if prefix else ""
    request: dict[str, Any] = {"Bucket": bucket, "Prefix": folder_key, "MaxKeys": _PAGE}
    while True:
        page = _steadily(fs, lambda: fs.call_s3("list_objects_v2", **request))
        for item in page.get("Contents", []):
            if not item["Key"].endswith("/"):  # a folder's marker
                name = f"{bucket}/{item['Key']}"
                yield {"name": name, "size": item["Size"], "ETag": item.get("ETag")}
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def _steadily(fs: Any, call: Callable[[], T]) -> T:
    """`steadily` for a call of a file system, which gets new credentials where it can."""
    connect = getattr(fs, "connect", None)
    return steadily(call, (lambda: connect(refresh=True)) if callable(connect) else None)


class _SteadyFile(io.RawIOBase):
    """A remote file whose reads survive a broken connection: they begin again where they were."""

    def __init__(self, fs: Any, path: str) -> None:
        super().__init__()
        self._fs = fs
        self._file = _steadily(fs, lambda: fs.open(path, "rb", block_size=_BLOCK))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def read(self, size: int | None = -1) -> bytes:
        start = self._file.tell()

        def again() -> bytes:
            self._file.seek(start)
            return cast(bytes, self._file.read(-1 if size is None else size))

        return _steadily(self._fs, again)

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


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
