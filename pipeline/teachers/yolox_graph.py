"""Where the pyramid of a YOLOX is in its ONNX graph.

Names of tensors differ from export to export, so they are found by the structure of the graph. The
last steps join the outputs of three levels. Each joins a box, an objectness and class scores, whose
branches start from one convolution: its input is the level of the pyramid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model.teach.teacher import TeacherError

_LEVELS = 3
_BRANCHES = 3  # box, objectness, classes


def find_pyramid(path: str) -> tuple[str, ...]:
    """Names of the tensors that enter the head of a YOLOX, for the strides 8, 16 and 32.

    The package onnx must be installed.

    Raises:
        TeacherError: the file holds no ONNX, or no YOLOX with raw grid output.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(path, load_external_data=False).graph
        makers = {name: node for node in graph.node for name in node.output}
        rows = _maker(makers, graph.output[0].name, "Transpose")
        joined = _maker(makers, rows.input[0], "Concat")
        flat = [_maker(makers, name, "Reshape", "Flatten") for name in joined.input]
        levels = [_maker(makers, node.input[0], "Concat") for node in flat]
        if len(levels) != _LEVELS or any(len(x.input) != _BRANCHES for x in levels):
            raise LookupError("its output does not join three levels of three branches")
        order = {name: i for i, name in enumerate(makers)}
        return tuple(_entry(makers, order, list(node.input)) for node in levels)
    except (DecodeError, LookupError) as error:
        raise TeacherError(
            f"teacher.model=yolox: {path} is no YOLOX with raw grid output ({error}); export one "
            "without decode_in_inference"
        ) from error


def _maker(makers: Mapping[str, Any], name: str, *kinds: str) -> Any:
    """The node that makes a tensor, if it is of one of these kinds."""
    node = makers[name]
    if node.op_type not in kinds:
        raise LookupError(f"{name} is made by {node.op_type}, not by {' or '.join(kinds)}")
    return node


def _entry(makers: Mapping[str, Any], order: Mapping[str, int], branches: list[str]) -> str:
    """The tensor that enters the first convolution of all branches."""
    shared = set.intersection(*(_ancestors(makers, name) for name in branches))
    if not shared:
        raise LookupError(f"the branches {', '.join(branches)} have nothing in common")
    node = makers[max(shared, key=order.__getitem__)]
    while node.op_type != "Conv":
        node = makers[node.input[0]]
    return str(node.input[0])


def _ancestors(makers: Mapping[str, Any], name: str) -> set[str]:
    """All computed tensors that a tensor is made of, itself included."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current in makers and current not in found:
            found.add(current)
            waiting += makers[current].input
    return found
