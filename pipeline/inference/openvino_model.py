"""The student in OpenVINO, on one thread of a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.net.config import STRIDES
from model.net.quality import frame_statistics
from model.track.frames import FrameResult, TrackableWindow
from model.track.rules import TrackRules
from model.track.slots import slot_counts, step_on_few_slots
from model.track.tracks import TrackState
from pipeline.inference import encode_graph, step_graph
from pipeline.inference.compiled import CompiledGraph, CompiledGraphs, Number
from pipeline.inference.encode_graph import WindowToTrack

Canvas = tuple[int, int]
"""Height and width in pixels."""
Stepped = tuple[FrameResult, TrackState]


class OpenVinoModel:
    """Tracks as `Tracker` does, frame by frame: batches gain nothing in OpenVINO.

    The dense part is made for one canvas, and opened when frames of it come. What follows it has
    maps that are padded to the config's canvas. The step is made for one number of slots.

    Attributes:
        config: The student's, whose thresholds hold where `track` gets no rules.
    """

    def __init__(self, graphs: CompiledGraphs, canvas: Canvas, dense: Number) -> None:
        """Open the graphs of a first canvas; errors are those of `CompiledGraphs.open`.

        Args:
            graphs: Of the student.
            canvas: Height and width of the first frames.
            dense: What the dense part computes in.
        """
        self.config = graphs.config
        self._graphs, self._dense = graphs, dense
        self._encoders: dict[Canvas, _Encoder] = {}
        self._detectors: dict[Canvas, CompiledGraph] = {}
        self._steps: dict[tuple[int, int, int], CompiledGraph] = {}
        self._encoder(canvas)
        self._step(self.config.padded_canvas(*canvas), slot_counts(self.config.slots)[0])

    def initial_state(self, batch: int) -> TrackState:
        """Return the state of one stream before its first frame.

        Raises:
            ValueError: the graphs take one stream.
        """
        if batch != 1:
            raise ValueError(f"the OpenVINO graphs take one stream, not {batch}")
        c = self.config
        return TrackState.empty(1, c.slots, c.dim, len(c.classes))

    def encode(self, images: Tensor, valid: Tensor, patches: Tensor) -> WindowToTrack:
        """Encode N frames; arguments and result as of `Tracker.encode`.

        Raises:
            ValueError: a side of the canvas is not a multiple of the coarsest stride.
        """
        statistics = torch.cat([frame_statistics(p[None]) for p in patches])
        height, width = images.shape[2:]
        return self._encoder((height, width)).encode(images, valid, statistics)

    def track(
        self,
        encoded: TrackableWindow,
        state: TrackState,
        rules: TrackRules | None = None,
        carried: Sequence[int] | None = None,
    ) -> tuple[list[FrameResult], TrackState]:
        """Track a window of N frames of one stream; see `Tracker.track`."""
        height, width = (side * STRIDES[0] for side in encoded.maps[0].shape[2:])
        rules = rules or TrackRules.of(self.config)
        given = step_graph.rule_inputs(rules)
        counts = slot_counts(self.config.slots)
        results = []
        for i in range(len(encoded)):
            if carried is not None and carried[i]:
                state = state.aged(carried[i], rules.miss_tolerance)
            frame = encoded[i : i + 1]

            def step(before: TrackState, frame: TrackableWindow = frame) -> Stepped:
                compiled = self._step((height, width), before.active.shape[1])
                after = compiled.outputs(1)
                compiled.run(step_graph.step_inputs(frame, before, given, True), after)
                return step_graph.step_outputs(after)

            result, state = step_on_few_slots(step, state, counts)
            results.append(result)
        return results, state

    def _encoder(self, canvas: Canvas) -> _Encoder:
        if canvas not in self._encoders:
            _check(canvas)
            dense = self._graphs.open(
                f"dense-{canvas[0]}x{canvas[1]}",
                lambda tracker: encode_graph.dense_graph(tracker, *canvas, channels_last=True),
                self._dense,
            )
            detector = self._detector(self.config.padded_canvas(*canvas))
            self._encoders[canvas] = _Encoder(dense, detector)
        return self._encoders[canvas]

    def _detector(self, canvas: Canvas) -> CompiledGraph:
        if canvas not in self._detectors:
            self._detectors[canvas] = self._graphs.open(
                f"detect-{canvas[0]}x{canvas[1]}",
                lambda tracker: encode_graph.detect_graph(tracker, *canvas, channels_last=True),
            )
        return self._detectors[canvas]

    def _step(self, canvas: Canvas, slots: int) -> CompiledGraph:
        key = (*canvas, slots)
        if key not in self._steps:
            name = f"step-{canvas[0]}x{canvas[1]}-{slots}"
            self._steps[key] = self._graphs.open(
                name, lambda tracker: step_graph.step_graph(tracker, *canvas, slots, True)
            )
        return self._steps[key]


class _Encoder:
    """The two graphs of encoding for one canvas."""

    def __init__(self, dense: CompiledGraph, detect: CompiledGraph) -> None:
        self._dense, self._detect = dense, detect
        between = dense.outputs(1)
        self._between = {name: between[name] for name in encode_graph.BETWEEN}

    def encode(self, images: Tensor, valid: Tensor, statistics: Tensor) -> WindowToTrack:
        """Encode N frames of the canvas, their patches already measured."""
        n = len(images)
        window = self._detect.outputs(n)
        window["semantic"], window["quality"] = (
            x for name, x in self._dense.outputs(n).items() if name not in self._between
        )
        pictures = images.permute(0, 2, 3, 1)
        for i in range(n):
            frame = slice(i, i + 1)
            taken = {name: x[frame] for name, x in window.items()}
            shared = {name: taken.pop(name) for name in ("semantic", "quality")}
            self._dense.run(
                {
                    "image": pictures[frame],
                    "valid": valid[frame],
                    "statistics": statistics[frame],
                },
                self._between | shared,
            )
            self._detect.run(self._between | shared | {"valid": valid[frame]}, taken)
        for name in (*step_graph.MAPS, "semantic"):
            window[name] = window[name].permute(0, 3, 1, 2)
        return encode_graph.window_to_track(window, statistics)


def _check(canvas: Canvas) -> None:
    coarsest = STRIDES[-1]
    if any(side % coarsest or side <= 0 for side in canvas):
        raise ValueError(
            f"images are {canvas[0]} x {canvas[1]} pixels; both sides of a canvas have to be "
            f"multiples of {coarsest}"
        )
