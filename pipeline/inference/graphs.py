"""Graphs of static shapes: modules of torch, and their conversion to OpenVINO.

Tensors go in and out by name. Names of inputs and outputs differ, as OpenVINO asks.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


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


def traced(graph: Graph) -> Any:
    """The graph as TorchScript, for its shapes alone."""
    # As a function, with the weights as constants: tracing a module takes twice as long, because
    # it makes a scripted copy of each part.
    module = graph.module.eval().requires_grad_(False)
    with warnings.catch_warnings(), torch.no_grad():
        # Warnings say that a trace holds for these shapes alone, and it is used for no others.
        warnings.simplefilter("ignore")
        example = tuple(graph.inputs.values())
        return torch.jit.trace(lambda *x: module(*x), example, check_trace=False)


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
    decoder = TorchScriptPythonDecoder(traced(graph), example_input=example)
    front = FrontEndManager().load_by_framework("pytorch")
    model = front.convert(front.load(decoder))
    model.reshape({i: list(x.shape) for i, x in enumerate(example)})
    for port, name in zip(model.inputs, graph.inputs, strict=True):
        port.get_tensor().set_names({f"in_{name}"})
    for port, name in zip(model.outputs, graph.outputs, strict=True):
        port.get_tensor().set_names({f"out_{name}"})
    return model
