"""fsspec's file systems as this project uses them: listings are not cached, reads are retried."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.storage.errors import StorageError, explained, with_retries

T = TypeVar("T")

PAGE = 1000
"""Keys per request; files between two reports of a listing."""

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_BLOCK = 4 * 1024 * 1024  # bytes per range request; s3fs would read 50 MiB for a header
_PLUGINS = {
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("abfs", "abfss", "az", "adl"), "adlfs"),
}
_S3_CONFIG = {
    "connect_timeout": 10,
    "read_timeout": 60,
    "retries": {"mode": "standard", "max_attempts": 2},  # `with_retries` does the rest
}


def resolve(uri: str) -> tuple[Any, str]:
    """Return the file system of a URI and the path in it.

    The scheme is read here, because fsspec's parser splits a local name that contains `::`.
    Listings are never cached: other workers write to the same folders.

    Raises:
        StorageError: The URI is empty, its scheme is unknown, or the package of the store is
            missing.
    """
    if not uri:
        raise StorageError("the path is empty; give a folder or a URL such as s3://bucket/prefix")
    scheme = _SCHEME.match(uri)
    name = scheme[1].lower() if scheme else "file"
    try:
        if name in ("file", "local"):
            fs: Any = fsspec.filesystem("file")
        else:
            options = {"config_kwargs": _S3_CONFIG} if name in ("s3", "s3a") else {}
            fs = fsspec.filesystem(name, use_listings_cache=False, **options)
    except (ValueError, ImportError) as error:
        if name in _PLUGINS and isinstance(error, ImportError):
            package = _PLUGINS[name]
            raise StorageError(
                f"cannot open {uri}: {name}:// needs the package {package}, which is not installed "
                f"here; pip install {package}, on every machine that tracks"
            ) from error
        raise StorageError(
            f"cannot open {uri}: {error}; use a local path or s3://, or install the fsspec "
            "package of that store"
        ) from error
    return fs, fs._strip_protocol(uri)


def retried(fs: Any, call: Callable[[], T]) -> T:
    """`with_retries` for a call of a file system, with new credentials where it can get them."""
    connect = getattr(fs, "connect", None)
    return with_retries(call, (lambda: connect(refresh=True)) if callable(connect) else None)


def walk(
    fs: Any,
    folder: str,
    enter: Callable[[str], bool] = lambda folder: True,
    failed: Callable[[str, StorageError], object] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the files below a folder in the order of their paths.

    A bucket is listed page by page, other stores folder by folder, so that no more than a page or
    a folder is in memory. Links to folders are followed once.

    Args:
        fs: The file system.
        folder: Path of a folder in it.
        enter: Whether to look into a folder, by its path. A bucket has no folders: all keys come.
        failed: Called with each unreadable folder below the first, which is left out; None: the
            error is raised.
    """
    if hasattr(fs, "call_s3"):
        yield from _bucket_pages(fs, folder)
        return
    local = isinstance(fs, LocalFileSystem)
    seen: set[str] = set()

    def below(current: str) -> Iterator[dict[str, Any]]:
        if local:
            real = os.path.realpath(current)
            if real in seen:
                return
            seen.add(real)
        try:
            with explained(current if local else fs.unstrip_protocol(current), "list"):
                entries = {} if local else _entries(fs, current)
                names = sorted(_local_names(current) if local else entries)
        except StorageError as error:
            if failed is None or current == folder:
                raise
            failed(current, error)
            return
        for name in names:
            path = f"{current.rstrip('/')}/{name}"
            if name.endswith("/"):
                if enter(path[:-1]):
                    yield from below(path[:-1])
            elif not local:
                yield entries[name]
            elif (entry := _local_file(path)) is not None:
                yield entry

    yield from below(folder)


def _local_names(folder: str) -> list[str]:
    """Names in a local folder; those of folders end with a slash, so that they sort as paths do."""
    with os.scandir(folder) as entries:
        return [entry.name + "/" if entry.is_dir() else entry.name for entry in entries]


def _local_file(path: str) -> dict[str, Any] | None:
    """A file of a local disk; None for a pipe, socket or device."""
    try:
        status = os.stat(path)
    except OSError:  # a broken link, or removed meanwhile: reading it will tell
        return {"name": path, "size": 0}
    if not stat.S_ISREG(status.st_mode):
        return None
    return {"name": path, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _entries(fs: Any, folder: str) -> dict[str, dict[str, Any]]:
    """As `_local_names`, of any other file system, with what it tells of each entry."""
    found = {}
    for entry in retried(fs, lambda: fs.ls(folder, detail=True)):
        path = entry["name"].rstrip("/")
        if path != folder.rstrip("/"):  # some stores list the marker of the folder itself
            name = path.rsplit("/", 1)[-1]
            found[name + "/" if entry["type"] == "directory" else name] = entry
    return found


def names(fs: Any, folder: str) -> Iterator[str]:
    """Yield the names of files and folders in a folder, in any order; none if it is missing."""
    if hasattr(fs, "call_s3"):
        for entry in _bucket_pages(fs, folder, "/"):
            yield entry["name"].rsplit("/", 1)[-1]
        return
    try:
        if isinstance(fs, LocalFileSystem):
            with os.scandir(folder) as entries:
                yield from (entry.name for entry in entries)
        else:
            yield from (
                path.rsplit("/", 1)[-1] for path in retried(fs, lambda: fs.ls(folder, detail=False))
            )
    except FileNotFoundError:
        return


class RetryingFile(io.RawIOBase):
    """A remote file. A read that fails is retried from the same position."""

    def __init__(self, fs: Any, path: str) -> None:
        super().__init__()
        self._fs = fs
        self._file = retried(fs, lambda: fs.open(path, "rb", block_size=_BLOCK))

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Position of the next read, in bytes."""
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = 0) -> int:
        """See `io.RawIOBase.seek`."""
        return int(self._file.seek(offset, whence))

    def read(self, size: int | None = -1) -> bytes:
        """See `io.RawIOBase.read`; raises the error of the store when all retries fail."""
        start = self._file.tell()

        def again() -> bytes:
            self._file.seek(start)
            return cast(bytes, self._file.read(-1 if size is None else size))

        return retried(self._fs, again)

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase.readinto`."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def _bucket_pages(fs: Any, folder: str, delimiter: str = "") -> Iterator[dict[str, Any]]:
    """Yield a bucket's objects page by page. s3fs's own listing holds all of them in memory.

    With a delimiter each folder below comes once, instead of what is in it.
    """
    bucket, prefix, _ = fs.split_path(folder)
    folder_key = f"{prefix.rstrip('/')}/" if prefix else ""
    request: dict[str, Any] = {"Bucket": bucket, "Prefix": folder_key, "MaxKeys": PAGE}
    if delimiter:
        request["Delimiter"] = delimiter
    while True:
        page = retried(fs, lambda: fs.call_s3("list_objects_v2", **request))
        for item in page.get("Contents", []):
            if not item["Key"].endswith("/"):  # the marker of a folder
                name = f"{bucket}/{item['Key']}"
                yield {"name": name, "size": item["Size"], "ETag": item.get("ETag")}
        for below in page.get("CommonPrefixes", []):
            yield {"name": f"{bucket}/{below['Prefix'].rstrip('/')}", "size": 0}
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]
