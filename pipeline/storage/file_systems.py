"""fsspec's file systems as this project uses them: no caches of listings, steady reads."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.storage.errors import StorageError, steadily

T = TypeVar("T")

PAGE = 1000
"""Keys a request, and files between two reports of a listing."""

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_BLOCK = 4 * 1024 * 1024  # bytes a range request; s3fs would take 50 MiB to look at a header
_PLUGINS = {
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("abfs", "abfss", "az", "adl"), "adlfs"),
}
_S3_CONFIG = {
    "connect_timeout": 10,
    "read_timeout": 60,
    "retries": {"mode": "standard", "max_attempts": 2},  # `steadily` does the rest
}


def resolve(uri: str) -> tuple[Any, str]:
    """Return the file system of a URI and the path in it.

    fsspec's own parser would split a local name that holds `::`, so the scheme is read here.
    Listings are never cached: other workers write to the same folders.

    Raises:
        StorageError: The URI is empty, of no known kind, or of a store whose package is missing.
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


def steady(fs: Any, call: Callable[[], T]) -> T:
    """`steadily` for a call of a file system, which gets new credentials where it can."""
    connect = getattr(fs, "connect", None)
    return steadily(call, (lambda: connect(refresh=True)) if callable(connect) else None)


def walk(fs: Any, folder: str) -> Iterator[dict[str, Any]]:
    """Yield the files below a folder; unlike fs.find, an unreadable folder is an error."""
    if hasattr(fs, "call_s3"):
        yield from _bucket_pages(fs, folder)
        return
    if not isinstance(fs, LocalFileSystem):
        yield from steady(fs, lambda: fs.find(folder, detail=True)).values()
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


class SteadyFile(io.RawIOBase):
    """A remote file whose reads survive a broken connection: they begin again where they were."""

    def __init__(self, fs: Any, path: str) -> None:
        super().__init__()
        self._fs = fs
        self._file = steady(fs, lambda: fs.open(path, "rb", block_size=_BLOCK))

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The place of the next read, in bytes."""
        return int(self._file.tell())

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of any file."""
        return int(self._file.seek(offset, whence))

    def read(self, size: int | None = -1) -> bytes:
        """As of any file; raises what the store raises when it stays down."""
        start = self._file.tell()

        def again() -> bytes:
            self._file.seek(start)
            return cast(bytes, self._file.read(-1 if size is None else size))

        return steady(self._fs, again)

    def readinto(self, buffer: Any) -> int:
        """As of any file."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """As of any file."""
        self._file.close()
        super().close()


def _bucket_pages(fs: Any, folder: str) -> Iterator[dict[str, Any]]:
    """Yield a bucket's objects page by page: s3fs's own listings hold all of them at once."""
    bucket, prefix, _ = fs.split_path(folder)
    folder_key = f"{prefix.rstrip('/')}/" if prefix else ""
    request: dict[str, Any] = {"Bucket": bucket, "Prefix": folder_key, "MaxKeys": PAGE}
    while True:
        page = steady(fs, lambda: fs.call_s3("list_objects_v2", **request))
        for item in page.get("Contents", []):
            if not item["Key"].endswith("/"):  # a folder's marker
                name = f"{bucket}/{item['Key']}"
                yield {"name": name, "size": item["Size"], "ETag": item.get("ETag")}
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]
