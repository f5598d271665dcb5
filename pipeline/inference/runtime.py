"""Which runtime a worker's student runs in: OpenVINO on CPUs, PyTorch on GPUs and otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Literal, Protocol

import torch
from torch import Tensor

from model.net.config import ModelConfig
from model.track.checkpoint import CheckpointError
from model.track.frames import EncodedFrames, FrameResult
from model.track.tracker import Tracker
from model.track.tracks import TrackState
from pipeline.inference.graph_cache import GraphCache, cache_folder

RuntimeChoice = Literal["auto", "torch", "openvino"]


class RuntimeUnavailable(ValueError):
    """A runtime that was asked for cannot be used; the message has the reason and the remedy."""


class Runtime(Protocol):
    """What tracking needs of a student; `Tracker` is one, and `OpenVinoModel`."""

    config: ModelConfig

    def initial_state(self, batch: int) -> TrackState:
        """See `Tracker.initial_state`."""

    def encode(self, images: Tensor, valid: Tensor, patches: Tensor) -> EncodedFrames:
        """See `Tracker.encode`."""

    def track(
        self, encoded: EncodedFrames, state: TrackState
    ) -> tuple[list[FrameResult], TrackState]:
        """See `Tracker.track`."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A student that is ready to track.

    Attributes:
        model: The student.
        runtime: Library and version that it runs in, and what the user should know of the choice.
    """

    model: Runtime
    runtime: str


def check_runtime(choice: RuntimeChoice) -> None:
    """Refuse a runtime that is not installed.

    Raises:
        RuntimeUnavailable: OpenVINO is asked for and is not there.
    """
    if choice == "openvino" and find_spec("openvino") is None:
        raise RuntimeUnavailable(
            "model.runtime=openvino: OpenVINO is not installed; install it with "
            "pip install openvino, or give model.runtime=torch"
        )


def open_model(
    choice: RuntimeChoice,
    device: str,
    config: ModelConfig,
    sha256: str,
    load: Callable[[], Tracker],
) -> Opened:
    """Open a student in the runtime of the choice; `auto` falls back to PyTorch.

    Args:
        choice: `auto` is OpenVINO on a CPU where it is installed, else PyTorch.
        device: Where PyTorch runs.
        config: The student's, with the thresholds to track with.
        sha256: Of its weights.
        load: Loads the student on the device, with this config.

    Raises:
        CheckpointError: The student cannot be loaded.
        RuntimeUnavailable: OpenVINO is asked for and cannot be used.
    """
    check_runtime(choice)
    in_torch = f"torch {torch.__version__}"
    if choice == "torch" or (choice == "auto" and device != "cpu"):
        return Opened(load(), in_torch)
    if device != "cpu":
        raise RuntimeUnavailable(
            f"model.runtime=openvino runs on CPUs, and this worker has {device}; give "
            "model.runtime=auto"
        )
    if find_spec("openvino") is None:
        return Opened(load(), f"{in_torch}: OpenVINO, which is faster, is not installed")
    cache = GraphCache(cache_folder())
    try:
        from pipeline.inference.openvino_model import open_openvino

        student = open_openvino(config, sha256, load, cache)
    except CheckpointError:
        raise
    # Tracing and conversion fail with errors of many kinds, and PyTorch does without them.
    except Exception as error:
        reason = f"OpenVINO cannot take this model ({type(error).__name__}: {error})"
        if choice == "openvino":
            raise RuntimeUnavailable(f"{reason}; give model.runtime=torch") from error
        return Opened(load(), f"{in_torch}: {reason}")
    name = f"openvino {version('openvino')}"
    return Opened(student, f"{name}: {cache.problem}" if cache.problem else name)
