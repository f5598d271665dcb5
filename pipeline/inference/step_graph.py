"""The student's step as a graph: one frame of one stream, its state as tensors in and out.

Shapes are those of `model.track.frames` with N = B = 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from model.net.attention import Rows
from model.net.config import STRIDES, ModelConfig
from model.net.decoder import DecoderOutput
from model.track.frames import FrameResult, TrackableFrames
from model.track.rules import TrackRules
from model.track.tracks import TrackState
from pipeline.inference.graphs import Graph

if TYPE_CHECKING:
    from model.track.tracker import Tracker

MAPS = tuple(f"map_{stride}" for stride in STRIDES)
_STATE = tuple(field.name for field in fields(TrackState))
_RESULT = tuple(field.name for field in fields(FrameResult))
_RULES = tuple(field.name for field in fields(TrackRules))
FRAME = (*MAPS, "semantic", "logits", "boxes", "embedding", "quality")
"""Inputs of step that are of the frame."""
BEFORE, AFTER = "before_", "after_"


class Step(nn.Module):
    """What a step reads of one frame, rules, and a state, to the result and the next state."""

    inputs = (*FRAME, *_RULES)
    outputs = (*_RESULT, *(AFTER + name for name in _STATE))

    def __init__(self, tracker: Tracker, channels_last: bool = False) -> None:
        super().__init__()
        self.tracker, self.channels_last = tracker, channels_last

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Take the frame's tensors and the state's, each in their order."""
        split = len(self.inputs)
        given = dict(zip(self.inputs, tensors[:split], strict=True))
        state = TrackState(**dict(zip(_STATE, tensors[split:], strict=True)))
        rules = TrackRules(**{name: given[name] for name in _RULES})
        frame: Any = _Rows(given) if self.channels_last else _Frame(given)
        result, after = self.tracker.step(frame, state, rules)
        return (
            *(getattr(result, name) for name in _RESULT),
            *(getattr(after, name) for name in _STATE),
        )


class _Frame:
    """`TrackableFrames` of the inputs of `Step`."""

    def __init__(self, given: Mapping[str, Tensor]) -> None:
        self.maps = tuple(given[name] for name in MAPS)
        self.semantic, self.quality = given["semantic"], given["quality"]
        self.people = DecoderOutput(*(given[name] for name in ("logits", "boxes", "embedding")))


class _Rows:
    """The same with channels last, for the track decoder."""

    def __init__(self, given: Mapping[str, Tensor]) -> None:
        self.maps = tuple(Rows(given[name]) for name in MAPS)
        self.semantic, self.quality = Rows(given["semantic"]), given["quality"]
        self.people = _Frame(given).people


def rule_inputs(rules: TrackRules) -> dict[str, Tensor]:
    """Rules of one stream as inputs of step, each (1,): float32, and int64 for frames."""
    given = {name: torch.as_tensor(getattr(rules, name)).reshape(1) for name in _RULES}
    return {name: x.float() if x.is_floating_point() else x.long() for name, x in given.items()}


def step_graph(
    tracker: Tracker, height: int, width: int, slots: int, channels_last: bool = False
) -> Graph:
    """The step on some slots for a canvas, of a tracker on the CPU in eval mode.

    Args:
        tracker: the student.
        height, width: of the canvas.
        slots: their number.
        channels_last: of maps and semantics.
    """
    c = tracker.config
    maps = empty_maps(c, height, width)
    queries = c.detection_queries
    frame = {
        **dict(zip(MAPS, maps, strict=True)),
        "semantic": maps[1],
        "logits": torch.zeros(1, 1, queries, len(c.classes)),
        "boxes": torch.full((1, 1, queries, 4), 0.5),
        "embedding": torch.zeros(1, queries, c.dim),
        "quality": torch.zeros(1),
    }
    state = TrackState.empty(1, slots, c.dim, len(c.classes))
    example = step_inputs(_Frame(frame), state, rule_inputs(TrackRules.of(c)), channels_last)
    return Graph(Step(tracker, channels_last), example, Step.outputs)


def empty_maps(config: ModelConfig, height: int, width: int) -> tuple[Tensor, ...]:
    """Maps of one frame on a canvas, finest first: zeros (1, D, h_l, w_l)."""
    sides = ((height // stride, width // stride) for stride in STRIDES)
    return tuple(torch.zeros(1, config.dim, *side) for side in sides)


def step_inputs(
    encoded: TrackableFrames,
    state: TrackState,
    rules: Mapping[str, Tensor],
    channels_last: bool = False,
) -> dict[str, Tensor]:
    """Inputs of step.

    Args:
        encoded: one frame.
        state: before it.
        rules: from `rule_inputs`.
        channels_last: as of `step_graph`.
    """
    people = encoded.people
    maps: tuple[Tensor, ...] = (*encoded.maps, encoded.semantic)
    if channels_last:
        maps = tuple(x.permute(0, 2, 3, 1) for x in maps)
    frame = (
        *maps,
        people.logits,
        people.boxes,
        people.embedding,
        encoded.quality,
        *(rules[name] for name in _RULES),
    )
    before = {BEFORE + name: x for name, x in state.tensors().items()}
    return dict(zip(Step.inputs, frame, strict=True)) | before


def step_outputs(outputs: Mapping[str, Tensor]) -> tuple[FrameResult, TrackState]:
    """The result and the next state, from the outputs of step."""
    return (
        FrameResult(**{name: outputs[name] for name in _RESULT}),
        TrackState(**{name: outputs[AFTER + name] for name in _STATE}),
    )
