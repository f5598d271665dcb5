"""Computes items ahead of their use, in a thread: decoding beside drawing and encoding."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_POLL_S = 0.1  # a thread that waits for room checks this often whether it should stop


def ahead(items: Iterable[T], room: int) -> Iterator[T]:
    """Yield items that a thread computes, at most `room` of them ahead.

    An exception of `items` is raised here. When the iteration is left early, the thread ends after
    the item it is at.
    """
    waiting: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(room)
    stop = threading.Event()

    def put(item: T | None, error: BaseException | None) -> bool:
        while not stop.is_set():
            try:
                waiting.put((item, error), timeout=_POLL_S)
                return True
            except queue.Full:
                continue
        return False

    def run() -> None:
        try:
            for item in items:
                if not put(item, None):
                    return
            put(None, StopIteration())
        except Exception as error:  # raised again where the items are used
            put(None, error)

    thread = threading.Thread(target=run, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]  # there is an item where there is no error
    finally:
        stop.set()
        thread.join()
