"""Decoded pictures of shards, kept in memory up to a limit."""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np

from pipeline.datasets.shards import PictureError, Shards


class FrameStore:
    """Decoded pictures by (sequence, frame).

    Only the process that made the store fills it. Call `preload` before loader processes are
    forked, so that they share its pages. Pictures that do not fit are decoded at each use.

    Args:
        shards: source of the pictures.
        memory_gb: bytes of decoded pictures to keep at most, in units of 10^9.
    """

    def __init__(self, shards: Shards, memory_gb: float) -> None:
        self.shards, self.limit = shards, int(memory_gb * 1e9)
        self._start()

    def _start(self) -> None:
        self._process, self._lock = os.getpid(), Lock()
        self._kept: dict[tuple[int, int], np.ndarray] = {}
        self._bytes, self._full = 0, False
        self._broken: dict[tuple[int, int], str] = {}

    def picture(self, sequence: int, frame: int) -> np.ndarray:
        """A picture (h, w, 3) uint8 RGB, read-only.

        Raises:
            PictureError: it cannot be read.
        """
        key = (sequence, frame)
        found = self._kept.get(key)
        if found is None:
            found = self._decode(key)
            self._keep(key, found)
        return found

    def preload(self, keys: Iterable[tuple[int, int]], threads: int) -> list[str]:
        """Decode pictures ahead, in order, until the memory is full.

        Returns:
            a line for each picture that cannot be read.
        """
        problems = []

        def decode(key: tuple[int, int]) -> None:
            if self._full:
                return
            try:
                self.picture(*key)
            except PictureError as error:
                problems.append(str(error))

        with ThreadPoolExecutor(max(1, threads)) as pool:
            for _ in pool.map(decode, keys):
                pass
        return sorted(problems)

    def _decode(self, key: tuple[int, int]) -> np.ndarray:
        if key in self._broken:
            raise PictureError(self._broken[key])
        try:
            picture = self.shards.picture(*key)
        except PictureError as error:
            self._broken[key] = str(error)
            raise
        picture.flags.writeable = False
        return picture

    def _keep(self, key: tuple[int, int], picture: np.ndarray) -> None:
        if os.getpid() != self._process:
            return
        with self._lock:
            if key in self._kept:
                return
            self._full = self._bytes + picture.nbytes > self.limit
            if not self._full:
                self._kept[key] = picture
                self._bytes += picture.nbytes

    def __getstate__(self) -> dict[str, object]:
        """State for other processes, without the pictures."""
        return {"shards": self.shards, "limit": self.limit}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._start()
