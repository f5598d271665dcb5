"""One student for the threads of several videos.

On a GPU their windows are joined into batches: it is idle while it works on one window alone. On a
CPU batches gain nothing, and the sums of a larger one have other last bits, so there the threads
take turns, and each video gets exactly the rows that it gets alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from model.track.frames import FrameResult, TrackableWindow
from model.track.rules import TrackRules
from model.track.tracks import TrackState
from pipeline.inference.batch_functions import Canvas
from pipeline.inference.batched_model import BatchedModel, Wait, WindowAndState
from pipeline.inference.runtime import Runtime

_LINGER_S = 0.002  # a window waits at most this long for windows of other videos


class DeviceLost(RuntimeError):
    """The GPU failed, and this process cannot use it any more; no video is to blame."""


class SharedRuntime(Runtime, Protocol):
    """A runtime that several threads call at once."""

    def stream(self) -> AbstractContextManager[None]:
        """While a thread tracks a video, it is inside of this."""


class OneAtATime:
    """A runtime whose threads take turns."""

    def __init__(self, model: Runtime) -> None:
        """Take a runtime, which is used by nobody else."""
        self.config = model.config
        self._model, self._lock = model, threading.Lock()

    def stream(self) -> AbstractContextManager[None]:
        """See `SharedRuntime`."""
        return nullcontext()

    def initial_state(self, batch: int) -> TrackState:
        """See `Tracker.initial_state`."""
        return self._model.initial_state(batch)

    def encode(self, images: Tensor, valid: Tensor, patches: Tensor) -> TrackableWindow:
        """See `Tracker.encode`."""
        with self._lock:
            return self._model.encode(images, valid, patches)

    def track(
        self,
        encoded: TrackableWindow,
        state: TrackState,
        rules: TrackRules | None = None,
        carried: Sequence[int] | None = None,
    ) -> tuple[list[FrameResult], TrackState]:
        """See `Tracker.track`."""
        with self._lock:
            return self._model.track(encoded, state, rules, carried)


@dataclass(slots=True, eq=False)
class _Request:
    """A window that waits for the model, in the thread of its video."""

    kind: str
    canvas: Canvas
    window: Any
    since: float = field(default_factory=time.monotonic)
    done: threading.Event = field(default_factory=threading.Event)
    output: Any = None
    wait: Wait | None = None
    error: BaseException | None = None


class StreamBatcher:
    """A runtime that joins the windows of several threads; one thread of its own runs the model.

    Half of the videos make a batch. While it is on the GPU, the threads of the other half write
    their rows and prepare their next windows, so the GPU need not wait for Python. A window waits
    a moment for others, then goes with those that are there, so that a slow decoder holds up
    nobody. Videos have no fixed place in a batch: whoever starts next takes part at once.
    """

    def __init__(self, model: BatchedModel) -> None:
        """Start the thread; `close` ends it."""
        self.config = model.config
        self._model = model
        self._changed = threading.Condition()
        self._waiting: list[_Request] = []
        self._streams = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread. Nobody may be waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    @contextmanager
    def stream(self) -> Iterator[None]:
        """See `SharedRuntime`."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def initial_state(self, batch: int) -> TrackState:
        """See `Tracker.initial_state`."""
        return self._model.initial_state(batch)

    def encode(self, images: Tensor, valid: Tensor, patches: Tensor) -> TrackableWindow:
        """See `Tracker.encode`; the arguments are on the host.

        Raises:
            DeviceLost: The GPU failed.
        """
        staged = self._model.stage(images, valid, patches)
        encoded: TrackableWindow = self._ask(_Request("encode", staged.canvas, staged))
        return encoded

    def track(
        self,
        encoded: TrackableWindow,
        state: TrackState,
        rules: TrackRules | None = None,
        carried: Sequence[int] | None = None,
    ) -> tuple[list[FrameResult], TrackState]:
        """See `Tracker.track`; results are on the host.

        Raises:
            DeviceLost: The GPU failed.
        """
        rules = rules or TrackRules.of(self.config)
        window = WindowAndState(encoded, state, rules, carried)
        tracked: tuple[list[FrameResult], TrackState] = self._ask(
            _Request("track", window.canvas, window)
        )
        return tracked

    def _ask(self, request: _Request) -> Any:
        with self._changed:
            self._waiting.append(request)
            self._changed.notify_all()
        request.done.wait()
        try:
            if request.error is not None:
                raise request.error
            assert request.wait is not None
            request.wait()
        except torch.AcceleratorError as error:
            raise DeviceLost(f"the GPU failed: {error}") from error
        return request.output

    def _count(self, change: int) -> None:
        with self._changed:
            self._streams += change
            self._changed.notify_all()

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            self._serve(batch)

    def _next(self) -> list[_Request] | None:
        """Wait for windows that go together; None at the end."""
        with self._changed:
            while not self._closed:
                batch, patience_s = self._ready()
                if batch:
                    self._waiting = [r for r in self._waiting if r not in batch]
                    return batch
                self._changed.wait(patience_s)
            return None

    def _ready(self) -> tuple[list[_Request], float | None]:
        """The windows to take now; if there are none, the seconds until there may be some."""
        enough = min(self._model.rows, max(1, (self._streams + 1) // 2))
        groups: dict[tuple[str, Canvas], list[_Request]] = {}
        for request in self._waiting:
            groups.setdefault((request.kind, request.canvas), []).append(request)
        # To track comes first: it gives a video rows to write and room for its next window.
        ordered = sorted(groups.values(), key=lambda g: (g[0].kind != "track", g[0].since))
        now, patience_s = time.monotonic(), None
        for group in ordered:
            left = group[0].since + _LINGER_S - now
            if len(group) >= enough or left <= 0:
                return group[: self._model.rows], None
            patience_s = left if patience_s is None else min(left, patience_s)
        return [], patience_s

    def _serve(self, batch: Sequence[_Request]) -> None:
        """Run a batch. If that fails, its windows are run alone: one may not cost the others."""
        run = self._model.encode if batch[0].kind == "encode" else self._model.track
        try:
            outputs, wait = run([request.window for request in batch])
        except torch.AcceleratorError as error:
            self._fail(batch, error)
        # Whatever it is, it belongs to the threads of these videos, and this one serves others.
        except Exception as error:
            if len(batch) == 1:
                self._fail(batch, error)
            else:
                for request in batch:
                    self._serve([request])
        else:
            for request, output in zip(batch, outputs, strict=True):
                request.output, request.wait = output, wait
                request.done.set()

    def _fail(self, batch: Sequence[_Request], error: BaseException) -> None:
        for request in batch:
            request.error = error
            request.done.set()
