"""The student on windows of several videos at once: encoded as one batch, stepped in lock-step.

Shapes: F frames in a batch, B windows that are tracked together, H x W the canvas; others as in
`model.track.frames`. Both batches are always full: unused rows hold what was there before, and
their results are dropped. So the kernels are the same whatever else is in the batch, and shapes
are fixed, as CUDA graphs need it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.net.config import STRIDES
from model.net.quality import frame_statistics
from model.track.frames import FrameResult, TrackableWindow
from model.track.rules import TrackRules
from model.track.tracks import TrackState
from pipeline.inference.batch_functions import (
    RESULT,
    RULES,
    STATE,
    Canvas,
    encode_frames,
    encode_inputs,
    fill,
    step_inputs,
    step_streams,
    window_of,
)
from pipeline.inference.fixed_call import FixedCall, Tensors
from pipeline.inference.precision import Precision, set_up, usable_precision

if TYPE_CHECKING:
    from model.track.tracker import Tracker


@dataclass(frozen=True, slots=True)
class StagedWindow:
    """N frames of one video on the device.

    Attributes:
        images: (N, 3, H, W) uint8, colours last in memory.
        valid, patches: As of `Tracker.encode`.
        copied: Call before use, on the stream of the use.
    """

    images: Tensor
    valid: Tensor
    patches: Tensor
    copied: Callable[[], None]

    @property
    def canvas(self) -> Canvas:
        """Height and width of the canvas."""
        return int(self.images.shape[2]), int(self.images.shape[3])


@dataclass(frozen=True, slots=True)
class WindowAndState:
    """Frames of one video to track, the state before them, and the video's rules.

    Attributes:
        frames, state, rules, carried: As of `Tracker.track`.
    """

    frames: TrackableWindow
    state: TrackState
    rules: TrackRules
    carried: Sequence[int] | None = None

    @property
    def canvas(self) -> Canvas:
        """Height and width of the canvas."""
        height, width = self.frames.maps[0].shape[2:]
        return int(height) * STRIDES[0], int(width) * STRIDES[0]


Wait = Callable[[], None]
"""Waits until outputs are there; any thread may call it."""
Tracked = tuple[list[FrameResult], TrackState]


class BatchedModel:
    """A student on one device, for windows of several videos.

    One thread calls `encode` and `track`, which only enqueue work on a GPU; any thread calls the
    other methods.

    Attributes:
        config: The student's, with the thresholds to track with.
        rows: Windows that are tracked together, at most.
        precision: What the dense part computes in.
        problems: What the user should know of the choices: no bf16, no CUDA graph.
    """

    def __init__(self, tracker: Tracker, rows: int, frames: int, precision: Precision) -> None:
        """Take a tracker in eval mode, which is changed and may not be used for anything else.

        Args:
            tracker: On its device.
            rows: B.
            frames: F.
            precision: For the dense part; float32 is taken where the device has no bf16.
        """
        self.config = tracker.config
        self.rows = rows
        self._tracker, self._frames = tracker, frames
        self._device = tracker.gate.bias.device
        self.precision, problem = usable_precision(precision, self._device)
        self.problems = [problem] if problem else []
        set_up(tracker, self.precision)
        cuda = self._device.type == "cuda"
        # Work of one stream does not wait for that of the others, or for copies.
        self._work = torch.cuda.Stream(self._device) if cuda else None
        self._copies = torch.cuda.Stream(self._device) if cuda else None
        # One memory for all recorded calls: they run one after the other, and outputs are copied.
        self._pool = torch.cuda.graph_pool_handle() if cuda else None
        self._encoders: dict[Canvas, FixedCall] = {}
        self._steps: dict[Canvas, FixedCall] = {}

    def initial_state(self, batch: int) -> TrackState:
        """See `Tracker.initial_state`."""
        with torch.inference_mode(), self._on(self._work):
            return self._tracker.initial_state(batch)

    def prepare(self, canvas: Canvas) -> None:
        """Make what a canvas needs, which takes seconds on a GPU.

        Raises:
            torch.OutOfMemoryError: The GPU is too small.
        """
        with torch.inference_mode(), self._on(self._work):
            if canvas not in self._encoders:
                encode = partial(encode_frames, self._tracker, self.precision)
                room = encode_inputs(canvas, self._frames, self._device)
                self._encoders[canvas] = self._call(encode, room)
            # Maps are padded to the config's canvas, so that one step serves many canvases.
            padded = self.config.padded_canvas(*canvas)
            if padded not in self._steps:
                step = partial(step_streams, self._tracker)
                room = step_inputs(self._tracker, padded, self.rows)
                self._steps[padded] = self._call(step, room)

    def calls(self, canvas: Canvas) -> tuple[FixedCall, FixedCall]:
        """What is run for a batch of a canvas, for measures: encoding, and one step."""
        self.prepare(canvas)
        return self._encoders[canvas], self._steps[self.config.padded_canvas(*canvas)]

    def stage(self, images: Tensor, valid: Tensor, patches: Tensor) -> StagedWindow:
        """Start the copy of a window to the device, beside other work; arguments as of `encode`.

        Pictures travel as bytes, through memory that the GPU reads by itself, and become numbers
        on the device.
        """
        if self._copies is None:
            return StagedWindow(images, valid, patches, lambda: None)
        with torch.inference_mode(), torch.cuda.stream(self._copies):
            there = [
                x.pin_memory().to(self._device, non_blocking=True) for x in (images, valid, patches)
            ]
            event = torch.cuda.Event()
            event.record()

        def copied() -> None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(event)
            for x in there:  # their memory may not be used again before this stream is done
                x.record_stream(stream)

        return StagedWindow(there[0], there[1], there[2], copied)

    def encode(self, windows: Sequence[StagedWindow]) -> tuple[list[TrackableWindow], Wait]:
        """Encode windows of one canvas, at most `frames` frames in a batch.

        Returns:
            The windows in their order, on the device, and a call that waits for them.
        """
        self.prepare(windows[0].canvas)
        call = self._encoders[windows[0].canvas]
        with torch.inference_mode(), self._on(self._work):
            for window in windows:
                window.copied()
            lengths = [len(window.images) for window in windows]
            chunks = []
            for chunk in cut(lengths, self._frames):
                count = sum(piece.stop - piece.start for _, piece in chunk)
                for name in ("images", "valid", "patches"):
                    rows = [getattr(windows[i], name)[piece] for i, piece in chunk]
                    torch.cat(rows, out=call.inputs[name][:count])
                call.inputs["statistics"].copy_(frame_statistics(call.inputs["patches"]))
                outputs = call.run()
                chunks.append({name: x[:count].clone() for name, x in outputs.items()})
            whole = _joined(chunks)
            ends = list(accumulate(lengths, initial=0))
            encoded: list[TrackableWindow] = [
                window_of({name: x[first:last] for name, x in whole.items()})
                for first, last in pairwise(ends)
            ]
            return encoded, self._waiter()

    def track(self, windows: Sequence[WindowAndState]) -> tuple[list[Tracked], Wait]:
        """Track encoded windows, at most `rows`, frame by frame together.

        Returns:
            Results of each window on the host, its next state on the device, and a call that
            waits for both.
        """
        call = self._steps[windows[0].canvas]
        # The longest first, so that those that go on are always the first rows.
        order = sorted(range(len(windows)), key=lambda i: -len(windows[i].frames))
        rows = [windows[i] for i in order]
        with torch.inference_mode(), self._on(self._work):
            for name in STATE:
                states = [getattr(row.state, name) for row in rows]
                torch.cat(states, out=call.inputs[f"state_{name}"][: len(rows)])
            for name in RULES:
                for row, window in enumerate(rows):
                    call.inputs[f"rule_{name}"][row] = getattr(window.rules, name)
            steps = []
            for index in range(len(rows[0].frames)):
                live = [row for row in rows if index < len(row.frames)]
                fill(call.inputs, [row.frames[index : index + 1] for row in live])
                call.inputs["live"][: len(live)] = True
                call.inputs["live"][len(live) :] = False
                self._age(call.inputs, [row.carried[index] if row.carried else 0 for row in live])
                outputs = call.run()
                steps.append({name: outputs[f"result_{name}"].clone() for name in RESULT})
                for name in STATE:
                    call.inputs[f"state_{name}"].copy_(outputs[f"state_{name}"])
            host = {
                name: torch.stack([step[name] for step in steps]).to("cpu", non_blocking=True)
                for name in RESULT
            }
            after = {name: call.inputs[f"state_{name}"].clone() for name in STATE}
            tracked: list[Tracked | None] = [None] * len(windows)
            for row, place in enumerate(order):
                results = _results(host, row, len(rows[row].frames))
                state = TrackState(**{name: x[row : row + 1] for name, x in after.items()})
                tracked[place] = results, state
            return [found for found in tracked if found is not None], self._waiter()

    def _age(self, inputs: Tensors, carried: Sequence[int]) -> None:
        """Let the tracks of the first rows age by the frames that were carried before the next."""
        if not any(carried):
            return
        tolerance = inputs["rule_miss_tolerance"]
        frames = tolerance.new_tensor([*carried, *[0] * (self.rows - len(carried))])
        state = TrackState(**{name: inputs[f"state_{name}"] for name in STATE})
        after = state.aged(frames, tolerance)
        for name in ("active", "misses", "track_id"):
            inputs[f"state_{name}"].copy_(getattr(after, name))

    def _call(self, function: Callable[[Tensors], Tensors], inputs: Tensors) -> FixedCall:
        call = FixedCall(function, inputs, self._pool)
        if call.problem and call.problem not in self.problems:
            self.problems.append(call.problem)
        return call

    def _on(self, stream: torch.cuda.Stream | None) -> AbstractContextManager[object]:
        return nullcontext() if stream is None else torch.cuda.stream(stream)

    def _waiter(self) -> Wait:
        """A call that waits for all work that is enqueued so far."""
        if self._work is None:
            return lambda: None
        event = torch.cuda.Event(blocking=True)  # sleeps: many threads wait at the same time
        event.record(self._work)
        return event.synchronize


def cut(lengths: Sequence[int], most: int) -> list[list[tuple[int, slice]]]:
    """Cut sequences of some lengths into batches of at most `most`, in order.

    Returns:
        Of each batch: numbers of sequences, and the part of each.
    """
    batches: list[list[tuple[int, slice]]] = [[]]
    room = most
    for number, length in enumerate(lengths):
        start = 0
        while start < length:
            if not room:
                batches.append([])
                room = most
            stop = min(length, start + room)
            batches[-1].append((number, slice(start, stop)))
            room -= stop - start
            start = stop
    return batches


def _joined(chunks: Sequence[Tensors]) -> Tensors:
    if len(chunks) == 1:
        return chunks[0]
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _results(host: Tensors, row: int, frames: int) -> list[FrameResult]:
    """Results of one window, from those (N, B, …) of all."""
    parts = {name: host[name][:frames, row].split(1) for name in RESULT}
    return [FrameResult(**{name: parts[name][i] for name in RESULT}) for i in range(frames)]
