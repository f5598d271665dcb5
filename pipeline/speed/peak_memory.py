"""Samples of this process while a block runs: of its highest resident memory, or of anything."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psutil

_EVERY_S = 0.002


@contextmanager
def peak_memory() -> Iterator[Sequence[int]]:
    """Sample the resident memory of this process; the one element is the peak in bytes so far."""
    process = psutil.Process()
    highest = [process.memory_info().rss]

    def sample() -> None:
        highest[0] = max(highest[0], process.memory_info().rss)

    with sampled(sample, _EVERY_S):
        yield highest


@contextmanager
def sampled(sample: Callable[[], None], every_s: float) -> Iterator[None]:
    """Call a function in a thread, each time after so many seconds, until the block ends."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(every_s):
            sample()

    thread = threading.Thread(target=repeat, name="samples", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
