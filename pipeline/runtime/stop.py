"""Ends of a run before its work is done: by a signal, or by a watchdog if nothing moves."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_POLL_S = 0.2
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal asked for the end. A BaseException, so that no handler for errors catches it."""


class StalledError(RuntimeError):
    """There was no progress for too long; the message says what the run waited for."""


class ClusterError(RuntimeError):
    """The Ray cluster cannot be used, or was lost; the message says what to do."""


class StopRequest:
    """Records the signal that asks for the end; a second signal ends the process at once.

    Attributes:
        signal: The first signal; None before one came.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM while the body runs; without effect outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        self.listen()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def listen(self) -> None:
        """Install the handlers. Called again after Ray connects, because Ray replaces SIGTERM's."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._handle)

    def check(self) -> None:
        """Raise Stopped if a signal came."""
        if self.signal is not None:
            raise Stopped(self.signal.name)

    def _handle(self, number: int, frame: object) -> None:
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = signal.Signals(number)
        # Not printed by rich, because the main thread may hold its lock.
        os.write(
            2,
            f"\n{self.signal.name}: stopping; a second signal ends the process at once\n".encode(),
        )


def guarded(
    results: Iterator[T],
    stop: StopRequest,
    moved: Callable[[], object],
    patience_s: float,
    waiting_for: Callable[[], str],
) -> Iterator[T]:
    """Yield the items of an iterator, which runs in a thread, so that a wait can be ended.

    Args:
        results: The iterator. Its daemon thread is left behind when the wait ends early.
        stop: Checked several times a second.
        moved: Returns a value that changes while work goes on.
        patience_s: Seconds without an item or a change after which the wait ends.
        waiting_for: Describes what the run waits for.

    Raises:
        Stopped: A signal asked for the end.
        StalledError: There was no item and no change for `patience_s`.
    """
    ready: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue()

    def take() -> None:
        try:
            for item in results:
                ready.put(("item", item))
        except BaseException as error:
            ready.put(("error", error))
        else:
            ready.put(("end", None))

    threading.Thread(target=take, name="results", daemon=True).start()
    last, since = moved(), time.monotonic()
    while True:
        stop.check()
        try:
            kind, item = ready.get(timeout=_POLL_S)
        except queue.Empty:
            if (now := moved()) != last:
                last, since = now, time.monotonic()
            if time.monotonic() - since > patience_s:
                raise StalledError(_stalled(patience_s, waiting_for())) from None
            continue
        if kind == "end":
            return
        if isinstance(item, BaseException):
            raise item
        yield item  # type: ignore[misc]
        since = time.monotonic()


@contextmanager
def guarding_main(
    moved: Callable[[], object],
    patience_s: float,
    waiting_for: Callable[[], str],
    give_up: Callable[[str], None],
) -> Iterator[None]:
    """As `guarded`, for work in the main thread, which only the end of the process can stop.

    Args:
        moved, patience_s, waiting_for: As in `guarded`.
        give_up: Called with the message; has to end the process.
    """
    done = threading.Event()

    def watch() -> None:
        last, since = moved(), time.monotonic()
        while not done.wait(_POLL_S):
            if (now := moved()) != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > patience_s:
                give_up(_stalled(patience_s, waiting_for()))
                return

    thread = threading.Thread(target=watch, name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _stalled(patience_s: float, waiting_for: str) -> str:
    return (
        f"no progress for {patience_s:g} s (limits.watchdog_s); the run waits for {waiting_for}. "
        "Results so far stay; run again to go on from here"
    )
