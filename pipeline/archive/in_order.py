"""Calls in threads, with the results in the order of their arguments."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_PENDING_PER_THREAD = 16


def in_order(call: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Yield the result of a call for each item, in the order of the items.

    Items are taken only a little ahead of the results, because an archive may have millions.

    Args:
        call: Called in several threads at once.
        items: May be endless.
        threads: Calls at once.
    """
    remaining = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="in-order") as pool:
        first = islice(remaining, threads * _PENDING_PER_THREAD)
        pending = deque(pool.submit(call, item) for item in first)
        try:
            while pending:
                yield pending.popleft().result()
                pending.extend(pool.submit(call, item) for item in islice(remaining, 1))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
