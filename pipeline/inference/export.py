"""The whole tracker as files of another format, with its state as tensors.

A folder gets two models and `model.json`, which says what goes in and out. `encode` takes one
picture with its luma patches, `step` takes what encode gave and the state of one stream. Both run
on one thread or many, without any code of this project.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from model.net.quality import PATCH, PATCHES, frame_statistics
from model.track.rules import TrackRules
from model.track.tracker import Tracker
from model.track.tracks import TrackState
from model.version import code_version
from pipeline.inference import encode_graph, step_graph
from pipeline.inference.graphs import Graph, convert, traced

ModelFormat = Literal["onnx", "openvino", "torch"]
ABOUT = "model.json"
_SUFFIX: dict[ModelFormat, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt"}
_OPSET = 18


class ExportUnavailable(RuntimeError):
    """A package that writes the format is not installed; the message names it."""


class _Encode(nn.Module):
    """One frame with its luma patches to what a step reads of it."""

    def __init__(self, dense: nn.Module, detect: nn.Module) -> None:
        super().__init__()
        self.dense, self.detect = dense, detect

    def forward(self, image: Tensor, valid: Tensor, patches: Tensor) -> tuple[Tensor, ...]:
        """Take the image (1, H, W, 3), its size (1, 2) and patches (1, P, S, S)."""
        *between, semantic, quality = self.dense(image, valid, frame_statistics(patches))
        *maps, logits, boxes, embedding = self.detect(*between, semantic, quality, valid)
        return (*maps, semantic, logits[None], boxes[None], embedding, quality)


def encode_export_graph(tracker: Tracker, height: int, width: int) -> Graph:
    """Encoding as one graph for a canvas, of a tracker on the CPU in eval mode."""
    dense = encode_graph.dense_graph(tracker, height, width)
    detect = encode_graph.detect_graph(tracker, *tracker.config.padded_canvas(height, width))
    inputs = {
        "image": dense.inputs["image"],
        "valid": dense.inputs["valid"],
        "patches": torch.zeros(1, PATCHES, PATCH, PATCH, dtype=torch.uint8),
    }
    return Graph(_Encode(dense.module, detect.module), inputs, step_graph.FRAME)


def check_format(kind: ModelFormat) -> None:
    """Refuse a format that cannot be written here.

    Raises:
        ExportUnavailable: Its package is not installed.
    """
    if kind != "torch" and find_spec(kind) is None:
        raise ExportUnavailable(
            f"format={kind} needs the package {kind}; install it with pip install 'vsdmot[export]'"
        )


def export_model(
    tracker: Tracker, kind: ModelFormat, folder: Path, height: int, width: int, sha256: str
) -> list[Path]:
    """Write a tracker into a folder, which is made if it is missing; returns the files.

    Args:
        tracker: On the CPU, in eval mode.
        kind: The format.
        folder: Its files of the same names are replaced.
        height, width: The canvas, in pixels; both are multiples of 32.
        sha256: Of the weights, for `model.json`.

    Raises:
        ExportUnavailable: The package of the format is not installed.
        OSError: A file cannot be written.
    """
    check_format(kind)
    folder.mkdir(parents=True, exist_ok=True)
    graphs = {
        "encode": encode_export_graph(tracker, height, width),
        "step": step_graph.step_graph(
            tracker, *tracker.config.padded_canvas(height, width), tracker.config.slots
        ),
    }
    files, models = [], {}
    for name, graph in graphs.items():
        path = folder / f"{name}{_SUFFIX[kind]}"
        _WRITERS[kind](graph, path)
        # OpenVINO writes the weights beside the model.
        files += [path, *folder.glob(f"{name}.bin")]
        models[name] = {"file": path.name, **_ports(graph)}
    about = folder / ABOUT
    about.write_text(json.dumps(_about(tracker, kind, height, width, sha256) | models, indent=2))
    return [*files, about]


def _about(
    tracker: Tracker, kind: ModelFormat, height: int, width: int, sha256: str
) -> dict[str, Any]:
    config = tracker.config
    first = TrackState.empty(1, config.slots, config.dim, len(config.classes)).tensors()
    rules = step_graph.rule_inputs(TrackRules.of(config))
    return {
        "format": kind,
        "code_version": code_version(),
        "weights_sha256": sha256,
        "classes": list(config.classes),
        "canvas": {
            "height": height,
            "width": width,
            "picture": "RGB, scaled by one factor to fit, at the top left; zeros elsewhere",
            "normalisation": "in the model; values are 0 to 255",
        },
        "patches": {
            "count": PATCHES,
            "side": PATCH,
            "of": "luma of the picture before it is scaled, 0 black to 255 white",
        },
        "thresholds": {f"in_{name}": x.item() for name, x in rules.items()},
        "state": [
            {
                "before": f"in_{step_graph.BEFORE}{name}",
                "after": f"out_{step_graph.AFTER}{name}",
                "first": x.flatten()[0].item(),  # all elements of a tensor are equal at first
            }
            for name, x in first.items()
        ],
    }


def _ports(graph: Graph) -> dict[str, list[dict[str, Any]]]:
    with torch.no_grad():
        results = graph.module.eval()(*graph.inputs.values())
    given = {f"in_{name}": x for name, x in graph.inputs.items()}
    made = {f"out_{name}": x for name, x in zip(graph.outputs, results, strict=True)}
    return {
        kind: [
            {"name": name, "shape": list(x.shape), "dtype": str(x.dtype).removeprefix("torch.")}
            for name, x in tensors.items()
        ]
        for kind, tensors in (("inputs", given), ("outputs", made))
    }


def _write_openvino(graph: Graph, path: Path) -> None:
    import openvino

    openvino.save_model(convert(graph), path, compress_to_fp16=False)


def _write_torch(graph: Graph, path: Path) -> None:
    traced(graph).save(str(path))


def _write_onnx(graph: Graph, path: Path) -> None:
    # By tracing, because the exporter by torch.export has no stable argsort.
    torch.onnx.register_custom_op_symbolic("aten::argsort", _argsort_in_onnx, _OPSET)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.module.eval(),
            tuple(graph.inputs.values()),
            str(path),
            input_names=[f"in_{name}" for name in graph.inputs],
            output_names=[f"out_{name}" for name in graph.outputs],
            opset_version=_OPSET,
            dynamo=False,
        )


def _argsort_in_onnx(g: Any, values: Any, stable: Any, dim: Any, descending: Any) -> Any:
    """A stable argsort as TopK of all values: by ONNX, equal values keep their order."""
    axis, largest = (x.node().t("value").item() for x in (dim, descending))
    every = g.op("Constant", value_t=torch.tensor(values.type().sizes()[axis : axis + 1]))
    _, indices = g.op("TopK", values, every, axis_i=axis, largest_i=int(largest), outputs=2)
    return indices


_WRITERS: dict[ModelFormat, Callable[[Graph, Path], None]] = {
    "onnx": _write_onnx,
    "openvino": _write_openvino,
    "torch": _write_torch,
}
