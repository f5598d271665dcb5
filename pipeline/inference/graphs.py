"""The student as two graphs of static shapes: encode one frame, step one stream by one frame.

Tensors go in and out by name. Names of inputs and outputs differ, as OpenVINO asks. Shapes are
those of `model.track.frames` with N = B = 1; D, K, L, M as there.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from model.net.config import STRIDES
from model.net.decoder import DecoderOutput
from model.net.proposals import DenseDetections
from model.net.quality import STATISTICS
from model.track.frames import EncodedFrames, FrameResult
from model.track.tracker import Tracker
from model.track.tracks import TrackState

GRAPHS = ("encode", "step")
_MAPS = tuple(f"map_{stride}" for stride in STRIDES)
_STATE = tuple(field.name for field in fields(TrackState))
_RESULT = tuple(field.name for field in fields(FrameResult))
# Of the frame before its detections are made.
_PLAIN = ("visual", "semantic", "semantic_map", "scene", "whole", "quality", "frame_weight")
_DENSE = ("logits", "boxes", "centres", "strides", "valid")
CONSTANT = ("dense_centres", "dense_strides")
"""Outputs of encode without an axis of frames."""
_BEFORE, _AFTER = "before_", "after_"


@dataclass(frozen=True, slots=True)
class Graph:
    """A module to convert, with an example of its inputs.

    Attributes:
        module: takes the inputs in their order, and returns a tuple of the outputs.
        inputs: examples by name; their shapes are those of the graph.
        outputs: names of the outputs.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]


class _Encode(nn.Module):
    """One frame, its patches already measured, to the fields of `EncodedFrames`."""

    outputs = (*_MAPS, *_PLAIN, "logits", "boxes", "embedding", *(f"dense_{n}" for n in _DENSE))

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self.tracker = tracker

    def forward(self, image: Tensor, valid: Tensor, statistics: Tensor) -> tuple[Tensor, ...]:
        features = self.tracker.features(image.permute(0, 3, 1, 2), valid)
        encoded = self.tracker.detect(self.tracker.describe(features, statistics))
        found, dense = encoded.detections, encoded.dense
        return (
            *encoded.maps,
            *(getattr(encoded, name) for name in _PLAIN),
            found.logits.transpose(0, 1),  # frames first, so that a frame of a window is one piece
            found.boxes.transpose(0, 1),
            found.embedding,
            *(getattr(dense, name) for name in _DENSE),
        )


class _Step(nn.Module):
    """What a step reads of one frame, and a state, to the frame's result and the next state."""

    inputs = (*_MAPS, "semantic", "logits", "boxes", "embedding", "quality")
    outputs = (*_RESULT, *(_AFTER + name for name in _STATE))

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self.tracker = tracker

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        split = len(self.inputs)
        given = dict(zip(self.inputs, tensors[:split], strict=True))
        state = TrackState(**dict(zip(_STATE, tensors[split:], strict=True)))
        result, after = self.tracker.step(_Frame(given), state)
        return (
            *(getattr(result, name) for name in _RESULT),
            *(getattr(after, name) for name in _STATE),
        )


class _Frame:
    """`TrackableFrames` of the inputs of `_Step`."""

    def __init__(self, given: Mapping[str, Tensor]) -> None:
        self.maps = tuple(given[name] for name in _MAPS)
        self.semantic, self.quality = given["semantic"], given["quality"]
        self.people = DecoderOutput(*(given[name] for name in ("logits", "boxes", "embedding")))


def graph_of(tracker: Tracker, name: str) -> Graph:
    """A graph of a tracker on the CPU in eval mode, by its name in `GRAPHS`."""
    c = tracker.config
    image = torch.zeros(1, 3, c.input_height, c.input_width, dtype=torch.uint8)
    valid = torch.tensor([[c.input_height, c.input_width]])
    statistics = torch.zeros(1, len(STATISTICS))
    if name == "encode":
        inputs = encode_inputs(image, valid, statistics)
        return Graph(_Encode(tracker), inputs, _Encode.outputs)
    with torch.no_grad():
        features = tracker.features(image, valid)
        encoded = tracker.detect(tracker.describe(features, statistics))
    return Graph(_Step(tracker), step_inputs(encoded, tracker.initial_state(1)), _Step.outputs)


def encode_inputs(images: Tensor, valid: Tensor, statistics: Tensor) -> dict[str, Tensor]:
    """Inputs of encode for N frames, each (N, …).

    Args:
        images, valid: as of `Tracker.encode`.
        statistics: (N, 5) from `frame_statistics`.
    """
    # Colours last, as decoded pictures lie in memory.
    return {"image": images.permute(0, 2, 3, 1), "valid": valid, "statistics": statistics}


def encoded_frames(outputs: Mapping[str, Tensor], statistics: Tensor) -> EncodedFrames:
    """Frames from the outputs of encode, each (N, …) but for `CONSTANT`."""
    found = DecoderOutput(
        outputs["logits"].transpose(0, 1), outputs["boxes"].transpose(0, 1), outputs["embedding"]
    )
    return EncodedFrames(
        maps=tuple(outputs[name] for name in _MAPS),
        detections=found,
        dense=DenseDetections(**{name: outputs[f"dense_{name}"] for name in _DENSE}),
        statistics=statistics,
        **{name: outputs[name] for name in _PLAIN},
    )


def step_inputs(encoded: EncodedFrames, state: TrackState) -> dict[str, Tensor]:
    """Inputs of step: one frame, and the state before it."""
    people = encoded.people
    frame = (
        *encoded.maps,
        encoded.semantic,
        people.logits,
        people.boxes,
        people.embedding,
        encoded.quality,
    )
    before = {_BEFORE + name: x for name, x in state.tensors().items()}
    return dict(zip(_Step.inputs, frame, strict=True)) | before


def state_after(outputs: Mapping[str, Tensor]) -> TrackState:
    """The next state, from the outputs of step."""
    return TrackState(**{name: outputs[_AFTER + name] for name in _STATE})


def convert(graph: Graph) -> Any:
    """The graph as `openvino.Model` with static shapes and names.

    Raises:
        Exception: of any kind, from torch or OpenVINO, if it cannot be converted.
    """
    # Not `openvino.convert_model`, which reports each conversion to its makers over the network:
    # nobody was asked, and without a network it waits for minutes.
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    example = tuple(graph.inputs.values())
    with warnings.catch_warnings(), torch.no_grad():
        # Warnings say that a trace holds for these shapes alone, and it is used for no others.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(graph.module.eval(), example, check_trace=False)
        front = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(traced, example_input=example)
        model = front.convert(front.load(decoder))
    model.reshape({i: list(x.shape) for i, x in enumerate(example)})
    for port, name in zip(model.inputs, graph.inputs, strict=True):
        port.get_tensor().set_names({f"in_{name}"})
    for port, name in zip(model.outputs, graph.outputs, strict=True):
        port.get_tensor().set_names({f"out_{name}"})
    return model
