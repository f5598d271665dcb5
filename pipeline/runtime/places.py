"""Places in a worker: many videos side by side, or one that suspicion falls on, alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Places:
    """Lets threads work side by side, or one of them without the others.

    A thread that wants to be alone waits for those at work to end, and no other starts before it.
    So it waits for one video at most, the longest of those at work.
    """

    def __init__(self) -> None:
        """Nobody is at work."""
        self._changed = threading.Condition()
        self._at_work = 0
        self._for_themselves = 0  # threads that are alone or wait for it
        self._alone = False

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Work side by side with others."""
        with self._changed:
            self._changed.wait_for(lambda: not self._for_themselves)
            self._at_work += 1
        try:
            yield
        finally:
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Work while no other thread does."""
        with self._changed:
            self._for_themselves += 1
            self._changed.wait_for(lambda: not self._at_work and not self._alone)
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._for_themselves -= 1
                self._alone = False
                self._changed.notify_all()
