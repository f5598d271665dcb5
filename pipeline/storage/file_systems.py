"""fsspec's file systems as this project uses them: listings are not cached, reads are retried."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.storage.errors import StorageError, with_retries

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


def walk(fs: Any, folder: str) -> Iterator[dict[str, Any]]:
    """Yield the files below a folder. An unreadable folder is an error, unlike in `fs.find`."""
    if hasattr(fs, "call_s3"):
        yield from _bucket_pages(fs, folder)
        return
    if not isinstance(fs, LocalFileSystem):
        yield from retried(fs, lambda: fs.find(folder, detail=True)).values()
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


def _bucket_pages(fs: Any, folder: str) -> Iterator[dict[str, Any]]:
    """Yield a bucket's objects page by page. s3fs's own listing holds all of them in memory."""
    bucket, prefix, _ = fs.split_path(folder)
    folder_key = f"{prefix.rstrip('/')}/" if prefix else ""
    request: dict[str, Any] = {"Bucket": bucket, "Prefix": folder_key, "MaxKeys": PAGE}
    while True:
        page = retried(fs, lambda: fs.call_s3("list_objects_v2", **request))
        for item in page.get("Contents", []):
            if not item["Key"].endswith("/"):  # the marker of a folder
                name = f"{bucket}/{item['Key']}"
                yield {"name": name, "size": item["Size"], "ETag": item.get("ETag")}
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]
