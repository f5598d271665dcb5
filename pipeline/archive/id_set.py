"""A set of ids that takes 16 bytes for each, for archives with millions of videos."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.bytes_]
"""Hashes, (N,) of 16 bytes each."""

_KEY = "S16"
_AT_ONCE = 8192  # ids hashed before they are sorted into the set


class IdSet:
    """A set of texts, kept as sorted hashes of 128 bits.

    Two texts of one hash would be taken for one. With a billion ids that has a chance of 1e-21.
    """

    def __init__(self, ids: Iterable[str] = ()) -> None:
        """A set of these ids, which are taken one by one."""
        # Sorted arrays, each more than twice as long as the next one: adding a few ids to a large
        # set does not copy it.
        self._runs: list[Keys] = []
        remaining = iter(ids)
        while some := list(islice(remaining, _AT_ONCE)):
            self.add(some)

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def __contains__(self, one: str) -> bool:
        return bool(self.has([one])[0])

    def has(self, ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether each id is in the set, (N,)."""
        return self._has(hashed(ids))

    def add(self, ids: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Add ids; returns for each whether it is new, (N,): not in the set nor before in `ids`."""
        keys = hashed(ids)
        first = np.zeros(len(keys), bool)
        first[np.unique(keys, return_index=True)[1]] = True
        new = first & ~self._has(keys)
        run = np.sort(keys[new])
        while self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.sort(np.concatenate([self._runs.pop(), run]))
        if len(run):
            self._runs.append(run)
        return new

    def _has(self, keys: Keys) -> npt.NDArray[np.bool_]:
        found = np.zeros(len(keys), bool)
        for run in self._runs:
            place = np.minimum(np.searchsorted(run, keys), len(run) - 1)
            found |= run[place] == keys
        return found


def hashed(texts: Sequence[str]) -> Keys:
    """Hashes of texts, (N,) of 16 bytes."""
    digests = b"".join(
        hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()
        for text in texts
    )
    return keys_of(digests)


def keys_of(data: Any) -> Keys:
    """Hashes that lie one after the other in a buffer, (N,) of 16 bytes."""
    return np.frombuffer(data, dtype=_KEY)
