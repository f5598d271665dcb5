"""Reads headers in a child process, so that a file that crashes libav ends only that process."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from pipeline.storage.errors import StorageError, describe_error
from pipeline.storage.files import ArchiveFile
from pipeline.video.info import VideoInfo
from pipeline.video.limits import Limits
from pipeline.video.probe import ProbeError, probe

Answer = tuple[int, str, Any]  # number of the request; "info", "input" or "storage"; result

_START_S = 300.0  # for a process to start


class HeaderReader:
    """Probes files, many at once; safe to share between threads. Use as a context manager.

    When the process dies or hangs, each file it was reading is read again, one after the other, in
    a second process. A file that ends the second process too gives a `ProbeError`. So a file that
    crashes its reader costs two processes, however many files are read at the same time.

    Args:
        threads: Headers read at once.
        limits: Bounds on a video.
        deadline_s: Seconds one header may take.
    """

    def __init__(self, threads: int, limits: Limits, deadline_s: float) -> None:
        """Start no process yet: there may be nothing to read."""
        self._threads, self._limits, self._deadline_s = threads, limits, deadline_s
        self._shared: _Child | None = None
        self._alone: _Child | None = None
        self._lock = threading.Lock()
        self._suspects = 0
        self._one_at_a_time = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        with self._lock:
            if self._shared is not None:
                self._shared.end()

    def probe(self, file: ArchiveFile) -> VideoInfo:
        """As `probe.probe`.

        Raises:
            ProbeError: Also when the file crashes or hangs its reader, with kind "poison" or
                "deadline".
            StorageError: The file cannot be read.
        """
        with suppress(_Lost):
            return self._child().ask(file, self._deadline_s)
        try:
            return self._read_alone(file)
        except _Lost as lost:
            error = ProbeError(f"reading the header {lost}")
            error.kind = lost.kind
            raise error from lost

    def _read_alone(self, file: ArchiveFile) -> VideoInfo:
        """Read a suspected file; the process ends when no other one waits."""
        with self._lock:
            self._suspects += 1
        with self._one_at_a_time:
            if self._alone is None or self._alone.lost:
                self._alone = _Child(1, self._limits)
            try:
                return self._alone.ask(file, self._deadline_s)
            finally:
                with self._lock:
                    self._suspects -= 1
                    last = self._suspects == 0
                if last:
                    self._alone.end()

    def _child(self) -> _Child:
        with self._lock:
            if self._shared is None or self._shared.lost:
                self._shared = _Child(self._threads, self._limits)
            return self._shared


class _Lost(Exception):
    """The process died or hung during a request; the message continues "reading the header"."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class _Child:
    """A process that reads headers, and its open requests."""

    def __init__(self, threads: int, limits: Limits) -> None:
        # Spawned, because a fork of a driver with threads copies locks that are held.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, threads, limits), name="headers", daemon=True
        )
        self._process.start()
        theirs.close()
        self.lost = False
        self._ready = threading.Event()
        self._send = threading.Lock()
        self._open: dict[int, Future[VideoInfo]] = {}
        self._numbers = count()
        self._receiver = threading.Thread(target=self._receive, name="headers", daemon=True)
        self._receiver.start()

    def ask(self, file: ArchiveFile, deadline_s: float) -> VideoInfo:
        """Send a file to the process and wait for its header."""
        answer: Future[VideoInfo] = Future()
        with self._send:
            number = next(self._numbers)
            self._open[number] = answer
            if self.lost:
                raise _Lost("poison", "was not begun")
            try:
                self._connection.send((number, file))
            except OSError as error:
                raise _Lost("poison", f"ended its process ({self._status()})") from error
        try:
            self._ready.wait(_START_S)  # the file's deadline does not include imports
            return answer.result(deadline_s)
        except NotInTime as error:
            self.end()
            raise _Lost("deadline", f"took more than {deadline_s:g} s") from error

    def end(self) -> None:
        """Kill the process, which is safe because it writes nothing."""
        self.lost = True
        self._process.kill()
        self._receiver.join()

    def _receive(self) -> None:
        while True:
            try:
                number, kind, value = self._connection.recv()
            except (EOFError, OSError):
                break
            if kind == "ready":
                self._ready.set()
                continue
            answer = self._open.pop(number)
            if kind == "info":
                answer.set_result(value)
            else:
                answer.set_exception((StorageError if kind == "storage" else ProbeError)(value))
        with self._send:
            self.lost = True
        self._ready.set()
        self._process.join()
        for answer in list(self._open.values()):
            answer.set_exception(_Lost("poison", f"ended its process ({self._status()})"))

    def _status(self) -> str:
        code = self._process.exitcode
        if code is not None and code < 0:
            return signal.Signals(-code).name
        return f"exit code {code}"


def _serve(connection: Connection, threads: int, limits: Limits) -> None:
    """Body of the process: answer requests until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the driver ends this process
    connection.send((-1, "ready", None))
    send = threading.Lock()

    def answer(number: int, file: ArchiveFile) -> None:
        reply: Answer
        try:
            reply = number, "info", probe(file, limits)
        except StorageError as error:
            reply = number, "storage", str(error)
        except ProbeError as error:
            reply = number, "input", str(error)
        except Exception as error:  # no file may end the run
            reply = number, "input", f"the header cannot be read: {describe_error(error)}"
        with send:
            connection.send(reply)

    with ThreadPoolExecutor(threads) as pool:
        while True:
            try:
                number, file = connection.recv()
            except (EOFError, OSError):
                return
            pool.submit(answer, number, file)
