"""Calls made ahead of their use by a few threads, because a store answers slowly."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
R = TypeVar("R")

THREADS = 8


def ahead(
    pool: ThreadPoolExecutor, call: Callable[[A], R], items: Iterable[A]
) -> Iterator[tuple[A, R]]:
    """Yield each item with the result of the call, in order; at most `THREADS` results wait."""
    waiting: deque[tuple[A, Future[R]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(call, item)))
            if len(waiting) > THREADS:
                first, result = waiting.popleft()
                yield first, result.result()
        while waiting:
            first, result = waiting.popleft()
            yield first, result.result()
    finally:
        for _, result in waiting:
            result.cancel()
