"""The student in OpenVINO, on one thread of a CPU, in float32."""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import openvino
import torch
from torch import Tensor

import model
from model.net.config import ModelConfig
from model.net.quality import frame_statistics
from model.track.frames import EncodedFrames, FrameResult
from model.track.tracker import Tracker
from model.track.tracks import TrackState
from pipeline.inference import graphs
from pipeline.inference.graph_cache import GraphCache

# One thread, because a sum over several has other last bits, and because actors give parallelism.
# Not pinned to a core, or the actors of a machine would share one. In float32, because on a CPU
# with bf16 OpenVINO takes that unless it is told.
_COMPILE = {
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "ENABLE_CPU_PINNING": False,
    "INFERENCE_PRECISION_HINT": "f32",
    "EXECUTION_MODE_HINT": "ACCURACY",
}


class OpenVinoModel:
    """Tracks as `Tracker` does, frame by frame: batches gain nothing in OpenVINO.

    Attributes:
        config: The student's, with the thresholds that are built into the graphs.
    """

    def __init__(self, config: ModelConfig, encode: Any, step: Any) -> None:
        """Take two compiled models, of the graphs of the same name."""
        self.config = config
        self._encode, self._step = _Request(encode), _Request(step)

    def initial_state(self, batch: int) -> TrackState:
        """Return the state of one stream before its first frame.

        Raises:
            ValueError: the graphs take one stream.
        """
        if batch != 1:
            raise ValueError(f"the OpenVINO graphs take one stream, not {batch}")
        c = self.config
        return TrackState.empty(1, c.slots, c.dim, len(c.classes))

    def encode(self, images: Tensor, valid: Tensor, patches: Tensor) -> EncodedFrames:
        """Encode N frames; arguments and result as of `Tracker.encode`.

        Raises:
            ValueError: the images are not of the canvas that the graphs were made for.
        """
        canvas = self.config.input_height, self.config.input_width
        if tuple(images.shape[2:]) != canvas:
            raise ValueError(f"images are {tuple(images.shape[2:])}, the graphs take {canvas}")
        statistics = torch.cat([frame_statistics(p[None]) for p in patches])
        inputs = graphs.encode_inputs(images, valid, statistics)
        window = self._encode.outputs(len(images))
        for i in range(len(images)):
            frame = slice(i, i + 1)
            shared = {
                name: x if name in graphs.CONSTANT else x[frame] for name, x in window.items()
            }
            self._encode.run({name: x[frame] for name, x in inputs.items()}, shared)
        return graphs.encoded_frames(window, statistics)

    def track(
        self, encoded: EncodedFrames, state: TrackState
    ) -> tuple[list[FrameResult], TrackState]:
        """Track a window of N consecutive frames of one stream, one after the other."""
        results = []
        for i in range(len(encoded)):
            after = self._step.outputs(1)
            self._step.run(graphs.step_inputs(encoded[i : i + 1], state), after)
            results.append(FrameResult(**{f.name: after[f.name] for f in fields(FrameResult)}))
            state = graphs.state_after(after)
        return results, state


class _Request:
    """Runs one graph on tensors of torch, without copies."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        empty = {port.get_any_name(): openvino.Tensor(port.element_type, port.shape).data
                 for port in compiled.outputs}  # fmt: skip
        self._outputs = {
            name.removeprefix("out_"): torch.from_numpy(array) for name, array in empty.items()
        }

    def outputs(self, frames: int) -> dict[str, Tensor]:
        """Room for the outputs of some frames, by name."""
        return {
            name: x.new_empty(x.shape if name in graphs.CONSTANT else (frames, *x.shape[1:]))
            for name, x in self._outputs.items()
        }

    def run(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        """Compute the outputs, in place."""
        # The request reads them until it is done, so the inputs have to live as long.
        held = {name: x.contiguous() for name, x in inputs.items()}
        for prefix, tensors in (("in_", held), ("out_", outputs)):
            for name, x in tensors.items():
                tensor = openvino.Tensor(x.numpy(), shared_memory=True)
                self._request.set_tensor(prefix + name, tensor)
        self._request.infer()


def open_openvino(
    config: ModelConfig, sha256: str, load: Callable[[], Tracker], cache: GraphCache
) -> OpenVinoModel:
    """Take the graphs of a student from the cache, or convert it.

    Args:
        config: The student's, with the thresholds to track with.
        sha256: Of its weights.
        load: Loads the student on the CPU, with this config.
        cache: Where graphs are kept.

    Raises:
        CheckpointError: The student cannot be loaded.
        Exception: of any kind, from torch or OpenVINO, if the student cannot be converted.
    """
    core = openvino.Core()
    loaded = functools.cache(load)

    def read(data: bytes) -> Any:
        try:
            return core.import_model(io.BytesIO(data), "CPU", _COMPILE)
        except RuntimeError:  # made by another build of OpenVINO
            return None

    def opened(name: str) -> Any:
        def make() -> bytes:
            converted = graphs.convert(graphs.graph_of(loaded(), name))
            data = io.BytesIO()
            core.compile_model(converted, "CPU", _COMPILE).export_model(data)
            return data.getvalue()

        return cache.get(_key(name, config, sha256, core), read, make)

    return OpenVinoModel(config, *(opened(name) for name in graphs.GRAPHS))


def _key(name: str, config: ModelConfig, sha256: str, core: Any) -> str:
    """Name of a graph's file: a hash of all that decides what is in it."""
    packages = Path(model.__file__ or "").parent
    code = hashlib.sha256()
    for path in sorted([*packages.glob("net/*.py"), *packages.glob("track/*.py")]):
        code.update(path.read_bytes())
    code.update(Path(graphs.__file__).read_bytes())
    decides = {
        "weights": sha256,
        "config": config.to_dict(),
        "code": code.hexdigest(),
        "compiled": _COMPILE,
        "torch": torch.__version__,
        "openvino": openvino.__version__,
        "cpu": [
            core.get_property("CPU", "FULL_DEVICE_NAME"),
            sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        ],
    }
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    return f"{name}-{config.input_height}x{config.input_width}-{digest[:32]}"
