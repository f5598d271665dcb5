"""The ledger of attempts: written before a video is opened, so that its killer leaves a trace.

A video that ends its worker (a segfault in a decoder, the OOM killer) leaves nothing else behind,
and would be tried for ever. One small file an attempt, ``attempts/<video_id>/<name>.json``, is
removed when the attempt ends in any orderly way; those left over were ended by a death.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Collection, Iterable
from contextlib import suppress
from datetime import UTC, datetime

from pipeline.storage import files as storage
from pipeline.storage.errors import StorageError

_LOST_WITH_DRIVER = 3  # how many attempts that ended with their whole run weigh as one


class Ledger:
    """The attempts below one output, seen from one run.

    Args:
        output: The output folder.
        run: Stands for this run; attempts of other runs may have ended with their driver, through
            no fault of the video, and weigh a third.
        in_process: Whether tracking happens in the driver, so that a video that kills its worker
            kills the run: then attempts of other such runs weigh in full.
    """

    def __init__(self, output: str, run: str, in_process: bool) -> None:
        """Write nothing yet."""
        self._root = f"{output.rstrip('/')}/attempts"
        self._run, self._in_process = run, in_process

    def entries(self, video_id: str) -> set[str]:
        """The attempts at a video that no one has taken back."""
        return storage.list_stems(f"{self._root}/{video_id}", ".json")

    def deaths(self, entries: Collection[str]) -> int:
        """How many workers these attempts have cost, rounded down."""
        full = sum(self._in_full(name) for name in entries)
        return (full * _LOST_WITH_DRIVER + len(entries) - full) // _LOST_WITH_DRIVER

    def begin(self, video_id: str) -> str:
        """Record an attempt before its video is opened; returns its name."""
        kind = "process" if self._in_process else "actor"
        name = f"{self._run}-{kind}-{secrets.token_hex(4)}"
        record = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        uri = f"{self._root}/{video_id}/{name}.json"
        storage.write_atomic(uri, json.dumps(record).encode())
        return name

    def end(self, video_id: str, name: str) -> None:
        """Take an attempt back that ended in an orderly way."""
        # Where nothing may be removed the entry stays: it weighs only if the video is not done.
        with suppress(StorageError):
            storage.remove(f"{self._root}/{video_id}/{name}.json")

    def forget(self, videos: Iterable[str], run: str | None = None) -> None:
        """Remove what the ledger holds of some videos: all of it, or what one run wrote."""
        for video_id in videos:
            for name in self.entries(video_id):
                if run is None or name.startswith(f"{run}-"):
                    storage.remove(f"{self._root}/{video_id}/{name}.json")

    def _in_full(self, name: str) -> bool:
        run, kind, _ = name.rsplit("-", 2)
        return run == self._run or kind == "process"


def new_run() -> str:
    """A name for one run of a job."""
    return secrets.token_hex(6)
