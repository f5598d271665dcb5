"""Stopping a run: by a signal, in order; or because nothing in it moves any more."""

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
    """A signal asked for the end. No `Exception`: no video is to blame, and none may catch it."""


class StalledError(RuntimeError):
    """Nothing has moved for too long; the message says what was waited for."""


class ClusterError(RuntimeError):
    """The cluster cannot be used, or was lost; the message says what to do."""


class StopRequest:
    """Whether a signal has asked for the end; the second signal ends the process at once."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to SIGINT and SIGTERM while the body runs; only in a main thread."""
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
        """Take the signals (back): Ray takes SIGTERM when it connects."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._handle)

    def check(self) -> None:
        """Raise Stopped if the end was asked for."""
        if self.signal is not None:
            raise Stopped(self.signal.name)

    def _handle(self, number: int, frame: object) -> None:
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = signal.Signals(number)
        # Not through rich: the main thread may be holding its lock.
        os.write(2, f"\n{self.signal.name}: stopping; once more stops at once\n".encode())


def guarded(
    results: Iterator[T],
    stop: StopRequest,
    moved: Callable[[], object],
    patience_s: float,
    waiting_for: Callable[[], str],
) -> Iterator[T]:
    """Yield what an iterator gives, taken in a thread of its own so that no wait is blind.

    Args:
        results: Consumed in a daemon thread, which is left behind when the wait is given up.
        stop: Looked at all the time.
        moved: Returns a value that changes while work goes on.
        patience_s: Seconds without a result or a change after which the wait is given up.
        waiting_for: Says what was waited for.

    Raises:
        Stopped: A signal asked for the end.
        StalledError: Nothing moved for too long.
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
    """As `guarded`, for work in the main thread, which nothing but the process's end can stop.

    Args:
        moved, patience_s, waiting_for: As there.
        give_up: Told the message; expected to end the process.
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
        f"nothing has moved for {patience_s:g} s (limits.watchdog_s); waiting for {waiting_for}. "
        "What is committed stays; run again to go on from here"
    )
