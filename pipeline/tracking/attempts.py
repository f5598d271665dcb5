"""The ledger of attempts, which finds videos that kill their workers.

A video can end its worker, by a segfault in a decoder or by the OOM killer. Without a ledger it
would be tried again forever. Each attempt writes one small file before the video is opened,
``attempts/<video_id>/<name>.json``, and removes it at its end, also after an error. A file that is
left over belongs to an attempt whose process died.

Windows of a video that are tracked apart are attempts of their own. A saved part of a video clears
the attempts before: what is left to do has not killed a worker yet.
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

_UNSURE_DEATHS_PER_DEATH = 3  # ends that others may be to blame for; so many count as one death
_BESIDE = "beside"  # kind of an attempt beside other videos
_WINDOW = "."  # before the window in the name of an attempt


class Ledger:
    """The attempts recorded in one output.

    An attempt of another run may have ended because its driver died, not because of the video, so
    it counts a third. If that run tracked in its driver's process, it counts in full: there a video
    that kills its worker kills the run. An attempt beside other videos of the same worker always
    counts a third, because each of them may have killed it. It is repeated alone, see `Places`, so
    that only the guilty one dies again.

    Args:
        output: The output folder.
        run: Name of this run.
        in_process: Whether this run tracks in the driver's process.
    """

    def __init__(self, output: str, run: str, in_process: bool) -> None:
        """Nothing is written before `begin`."""
        self._root = f"{output.rstrip('/')}/attempts"
        self._run, self._in_process = run, in_process

    def entries(self, video_id: str, window: str = "") -> set[str]:
        """Names of the attempts that have not been removed.

        Args:
            video_id: The video.
            window: Name of the window of the video; "" is the video as a whole.
        """
        names = storage.list_stems(f"{self._root}/{video_id}", ".json")
        return {name for name in names if name.partition(_WINDOW)[2] == window}

    def deaths(self, entries: Collection[str]) -> int:
        """Number of deaths of workers that these attempts count for, rounded down."""
        full = sum(self._counts_in_full(name) for name in entries)
        return full + (len(entries) - full) // _UNSURE_DEATHS_PER_DEATH

    def begin(self, video_id: str, alone: bool = True, window: str = "") -> str:
        """Record an attempt before its video is opened; returns its name.

        Args:
            video_id, window: As of `entries`.
            alone: Whether the worker tracks no other video at the same time.
        """
        kind = "process" if self._in_process else "actor"
        kind = kind if alone else _BESIDE
        name = f"{self._run}-{kind}-{secrets.token_hex(4)}"
        name = f"{name}{_WINDOW}{window}" if window else name
        record = {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        uri = f"{self._root}/{video_id}/{name}.json"
        storage.write_atomic(uri, json.dumps(record).encode())
        return name

    def end(self, video_id: str, name: str) -> None:
        """Remove the record of an attempt that has ended without a death."""
        # If removing fails, the record stays. It counts only while the video is not done.
        with suppress(StorageError):
            storage.remove(f"{self._root}/{video_id}/{name}.json")

    def clear(self, video_id: str, names: Iterable[str]) -> None:
        """Remove some attempts at a video."""
        for name in names:
            storage.remove(f"{self._root}/{video_id}/{name}.json")

    def forget(self, videos: Iterable[str], run: str | None = None) -> None:
        """Remove the attempts at some videos and their windows: all, or those of one run."""
        for video_id in videos:
            names = storage.list_stems(f"{self._root}/{video_id}", ".json")
            self.clear(video_id, (n for n in names if run is None or n.startswith(f"{run}-")))

    def _counts_in_full(self, name: str) -> bool:
        run, kind, _ = name.partition(_WINDOW)[0].rsplit("-", 2)
        return kind != _BESIDE and (run == self._run or kind == "process")


def new_run() -> str:
    """A random name for one run of a job."""
    return secrets.token_hex(6)
