"""The highest resident memory of this process, sampled."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil

_EVERY_S = 0.002


@contextmanager
def peak_memory() -> Iterator[Sequence[int]]:
    """Sample the resident memory of this process; the one element is the peak in bytes so far."""
    process, over = psutil.Process(), threading.Event()
    highest = [process.memory_info().rss]

    def sample() -> None:
        while not over.wait(_EVERY_S):
            highest[0] = max(highest[0], process.memory_info().rss)

    thread = threading.Thread(target=sample, name="memory", daemon=True)
    thread.start()
    try:
        yield highest
    finally:
        over.set()
        thread.join()
