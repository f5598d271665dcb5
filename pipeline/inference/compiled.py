"""Graphs that are compiled for this CPU: opened from the cache, or converted, and run."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import openvino
import torch
from torch import Tensor

import model
from model.net.config import ModelConfig
from model.track.rules import TrackRules
from pipeline.inference import graphs
from pipeline.inference.graph_cache import GraphCache
from pipeline.inference.graphs import Graph
from pipeline.inference.openvino_core import openvino_core

if TYPE_CHECKING:
    from model.track.tracker import Tracker

_CONVERSION_S = 10  # of the graphs of one canvas on one core
Number = Literal["f32", "bf16"]
# One thread, because a sum over several has other last bits, and because actors give parallelism.
# Not pinned to a core, or the actors of a machine would share one.
_COMPILE = {
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "ENABLE_CPU_PINNING": False,
    "EXECUTION_MODE_HINT": "ACCURACY",
}


class CompiledGraph:
    """Runs one graph on tensors of torch, without copies."""

    def __init__(self, compiled: Any) -> None:
        """Take an `openvino.CompiledModel` of a graph from `graphs.convert`."""
        self._request = compiled.create_infer_request()
        empty = {port.get_any_name(): openvino.Tensor(port.element_type, port.shape).data
                 for port in compiled.outputs}  # fmt: skip
        self._outputs = {
            name.removeprefix("out_"): torch.from_numpy(array) for name, array in empty.items()
        }

    def outputs(self, frames: int) -> dict[str, Tensor]:
        """Room for the outputs of some frames, by name."""
        return {name: x.new_empty((frames, *x.shape[1:])) for name, x in self._outputs.items()}

    def run(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        """Compute the outputs, in place."""
        # The request reads them until it is done, so the inputs have to live as long.
        held = {name: x.contiguous() for name, x in inputs.items()}
        for prefix, tensors in (("in_", held), ("out_", outputs)):
            for name, x in tensors.items():
                tensor = openvino.Tensor(x.numpy(), shared_memory=True)
                self._request.set_tensor(prefix + name, tensor)
        self._request.infer()


class CompiledGraphs:
    """The graphs of one student on this machine's CPU.

    Attributes:
        config: The student's.
        has_bf16: Whether the CPU computes in bf16.
    """

    def __init__(
        self,
        config: ModelConfig,
        sha256: str,
        load: Callable[[], Tracker],
        cache: GraphCache,
        notice: Callable[[str], None],
    ) -> None:
        """Take a student; nothing is opened yet.

        Args:
            config: The student's, with the thresholds to track with.
            sha256: Of its weights.
            load: Loads the student on the CPU, with this config.
            cache: Where graphs are kept.
            notice: Called before a graph is converted, with what the user should know of it.
        """
        self.config = config
        self._sha256 = sha256
        self._load = functools.cache(load)
        self._cache, self._notice = cache, notice
        self._core = openvino_core()
        self.has_bf16 = has_bf16(self._core)

    def open(
        self, name: str, of: Callable[[Tracker], Graph], number: Number = "f32"
    ) -> CompiledGraph:
        """Take a graph from the cache, or convert it.

        Args:
            name: Of the graph, with all that decides its shapes.
            of: Makes the graph of the student.
            number: What the graph computes in. OpenVINO would take bf16 unless it is told.

        Raises:
            CheckpointError: The student cannot be loaded.
            Exception: of any kind, from torch or OpenVINO, if it cannot be converted.
        """
        options = {**_COMPILE, "INFERENCE_PRECISION_HINT": number}

        def read(data: bytes) -> Any:
            try:
                return self._core.import_model(io.BytesIO(data), "CPU", options)
            except RuntimeError:  # made by another build of OpenVINO
                return None

        def make() -> bytes:
            self._notice(f"converting the model for this CPU, once, about {_CONVERSION_S} s")
            converted = graphs.convert(of(self._load()))
            data = io.BytesIO()
            self._core.compile_model(converted, "CPU", options).export_model(data)
            return data.getvalue()

        key = f"{name}-{self._digest(options)}"
        return CompiledGraph(self._cache.get(key, read, make))

    def _digest(self, options: Mapping[str, Any]) -> str:
        """A hash of all that decides what is in a graph's file, but for the graph's name."""
        rules = {field.name for field in fields(TrackRules)}  # inputs of the step
        shapes = {k: v for k, v in self.config.to_dict().items() if k not in rules}
        decides = {
            "weights": self._sha256,
            "config": shapes,
            "code": _CODE_SHA256,
            "compiled": options,
            "torch": torch.__version__,
            "openvino": openvino.__version__,
            "cpu": [
                self._core.get_property("CPU", "FULL_DEVICE_NAME"),
                sorted(self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
            ],
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


def has_bf16(core: Any) -> bool:
    """Whether this machine's CPU computes in bf16."""
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _code_sha256() -> str:
    """Hash of the code that graphs are made of."""
    package = Path(model.__file__ or "").parent
    ours = Path(graphs.__file__).parent
    code = hashlib.sha256()
    for folder, pattern in ((package, "net/*.py"), (package, "track/*.py"), (ours, "*graph*.py")):
        for path in sorted(folder.glob(pattern)):
            code.update(path.read_bytes())
    return code.hexdigest()


# At import, so that it is the code that runs, also if files change later.
_CODE_SHA256 = _code_sha256()
