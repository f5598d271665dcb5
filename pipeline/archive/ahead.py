"""Takes items of a slow iterator ahead of need, in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_POLL_S = 0.2


class Ahead(Generic[T]):
    """Runs an iterator in a thread, up to a number of items ahead.

    Args:
        items: The iterator.
        most: Greatest number of items that wait.
    """

    def __init__(self, items: Iterator[T], most: int) -> None:
        """Start the thread."""
        self._ready: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(most)
        self._over = False
        self._left = threading.Event()
        threading.Thread(target=self._run, args=(items,), name="ahead", daemon=True).start()

    def take(self, count: int, waiting: Callable[[], object] = lambda: None) -> list[T]:
        """The next items; fewer than `count` only at the end.

        Args:
            count: How many.
            waiting: Called several times a second while they are awaited.

        Raises:
            BaseException: That of the iterator, or of `waiting`.
        """
        taken: list[T] = []
        while len(taken) < count and not self._over:
            try:
                kind, item = self._ready.get(timeout=_POLL_S)
            except queue.Empty:
                waiting()
                continue
            if kind == "item":
                taken.append(item)  # type: ignore[arg-type]
                continue
            self._over = True
            if isinstance(item, BaseException):
                raise item
        return taken

    def leave(self) -> None:
        """End the thread at its next item."""
        self._left.set()

    def _run(self, items: Iterator[T]) -> None:
        try:
            for item in items:
                self._put("item", item)
                if self._left.is_set():
                    return
        except BaseException as error:
            self._put("error", error)
        else:
            self._put("end", None)

    def _put(self, kind: str, item: T | BaseException | None) -> None:
        while not self._left.is_set():
            try:
                self._ready.put((kind, item), timeout=_POLL_S)
                return
            except queue.Full:
                continue
