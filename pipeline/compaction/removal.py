"""Removal of files whose rows are elsewhere, some time after the commit that says so."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any

from pipeline.runtime.stop import StopRequest
from pipeline.storage import files as storage
from pipeline.storage.errors import StorageError, explained
from pipeline.storage.file_systems import PAGE, resolve, retried

_POLL_S = 0.2


class Removal:
    """Removes files once they have been out of use for `keep_s` seconds.

    A reader that listed them before the commit has that time to open them.

    Attributes:
        removed: Number of files removed.
    """

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._waiting: deque[tuple[float, Iterable[str]]] = deque()
        self.removed = 0

    def add(self, uris: Iterable[str]) -> None:
        """Take files that no reader lists any more; they are named when their time has come."""
        self._waiting.append((time.monotonic() + self._keep_s, uris))

    @property
    def waits(self) -> bool:
        """Whether files wait whose time has not come."""
        return bool(self._waiting) and self._waiting[-1][0] > time.monotonic()

    def due(self) -> None:
        """Remove the files whose time has come.

        Raises:
            StorageError: A file cannot be removed.
        """
        while self._waiting and self._waiting[0][0] <= time.monotonic():
            self.removed += remove_all(self._waiting.popleft()[1])

    def finish(self, stop: StopRequest) -> None:
        """Wait for the last files, and remove them.

        Raises:
            StorageError: A file cannot be removed.
            Stopped: A signal asked for the end.
        """
        while self._waiting:
            stop.check()
            time.sleep(min(_POLL_S, max(0.0, self._waiting[0][0] - time.monotonic())))
            self.due()


def remove_all(uris: Iterable[str]) -> int:
    """Remove files, those of S3 a thousand at once; returns their number.

    Raises:
        StorageError: A file cannot be removed.
    """
    count = 0
    remaining = iter(uris)
    while page := list(islice(remaining, PAGE)):
        fs, _ = resolve(page[0])
        if hasattr(fs, "call_s3"):
            _remove_objects(fs, page)
        else:
            for uri in page:
                storage.remove(uri)
        count += len(page)
    return count


def _remove_objects(fs: Any, uris: list[str]) -> None:
    """Remove at most a thousand objects of one bucket by one request."""
    keys = [fs.split_path(fs._strip_protocol(uri)) for uri in uris]
    request = {"Objects": [{"Key": key} for _, key, _ in keys], "Quiet": True}
    with explained(uris[0], "remove"):
        answer = retried(
            fs, lambda: fs.call_s3("delete_objects", Bucket=keys[0][0], Delete=request)
        )
    for failure in answer.get("Errors", []):
        if failure.get("Code") != "NoSuchKey":
            raise StorageError(
                f"cannot remove s3://{keys[0][0]}/{failure.get('Key')}: {failure.get('Message')}; "
                "run again, and check that the credentials in use may delete in this bucket"
            )
