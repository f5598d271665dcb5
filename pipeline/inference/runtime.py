"""Which runtime a worker's student runs in: OpenVINO on CPUs, PyTorch on GPUs and otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from model.net.config import ModelConfig
from model.track.checkpoint import CheckpointError
from model.track.frames import FrameResult, TrackableWindow
from model.track.rules import TrackRules
from model.track.tracks import TrackState
from pipeline.inference.graph_cache import GraphCache, cache_folder

if TYPE_CHECKING:
    from model.track.tracker import Tracker

RuntimeChoice = Literal["auto", "torch", "openvino"]
PrecisionChoice = Literal["exact", "fast"]


class RuntimeUnavailable(ValueError):
    """A runtime that was asked for cannot be used; the message has the reason and the remedy."""


class Runtime(Protocol):
    """What tracking needs of a student; `Tracker` is one, and `OpenVinoModel`."""

    config: ModelConfig

    def initial_state(self, batch: int) -> TrackState:
        """See `Tracker.initial_state`."""

    def encode(self, images: Tensor, valid: Tensor, patches: Tensor) -> TrackableWindow:
        """See `Tracker.encode`."""

    def track(
        self,
        encoded: TrackableWindow,
        state: TrackState,
        rules: TrackRules | None = None,
        carried: Sequence[int] | None = None,
    ) -> tuple[list[FrameResult], TrackState]:
        """See `Tracker.track`."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A student that is ready to track.

    Attributes:
        model: The student.
        runtime: Library, version and precision that it runs in, and what the user should know of
            the choice.
        precision: What it runs in; `exact` where `fast` was asked for and cannot be had.
    """

    model: Runtime
    runtime: str
    precision: PrecisionChoice = "exact"


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


def takes_openvino(choice: RuntimeChoice, device: str) -> bool:
    """Whether a student is run in OpenVINO, if it can be converted."""
    return choice != "torch" and device == "cpu" and find_spec("openvino") is not None


def open_model(
    choice: RuntimeChoice,
    device: str,
    config: ModelConfig,
    sha256: str,
    load: Callable[[], Tracker],
    *,
    precision: PrecisionChoice = "exact",
    canvas: tuple[int, int] | None = None,
    graph_folder: str = "",
    notice: Callable[[str], None] = lambda text: None,
) -> Opened:
    """Open a student in the runtime of the choice; `auto` falls back to PyTorch.

    Args:
        choice: `auto` is OpenVINO on a CPU where it is installed, else PyTorch.
        device: Where PyTorch runs.
        config: The student's, with the thresholds to track with.
        sha256: Of its weights.
        load: Loads the student on the device, with this config; it may be called again later.
        precision: `fast` is bf16 in the dense part, where OpenVINO runs on a CPU that has it;
            everywhere else it is `exact`, which is float32.
        canvas: Height and width of the first frames; None takes those of the config.
        graph_folder: Where graphs that are converted here are kept for later processes; "": with
            the others of this user.
        notice: Called with what the user should know while it happens.

    Raises:
        CheckpointError: The student cannot be loaded.
        RuntimeUnavailable: OpenVINO is asked for and cannot be used.
    """
    check_runtime(choice)
    if choice == "torch" or (choice == "auto" and device != "cpu"):
        return _in_torch(load, precision)
    if device != "cpu":
        raise RuntimeUnavailable(
            f"model.runtime=openvino runs on CPUs, and this worker has {device}; give "
            "model.runtime=auto"
        )
    if find_spec("openvino") is None:
        return _in_torch(load, precision, "OpenVINO, which is faster, is not installed")
    cache = GraphCache(cache_folder())
    if graph_folder:
        cache = GraphCache(Path(graph_folder), cache_folder())
    try:
        from pipeline.inference.compiled import CompiledGraphs
        from pipeline.inference.openvino_model import OpenVinoModel

        graphs = CompiledGraphs(config, sha256, load, cache, notice)
        fast = precision == "fast" and graphs.has_bf16
        student = OpenVinoModel(
            graphs, canvas or (config.input_height, config.input_width), "bf16" if fast else "f32"
        )
    except CheckpointError:
        raise
    # Tracing and conversion fail with errors of many kinds, and PyTorch does without them.
    except Exception as error:
        reason = f"OpenVINO cannot take this model ({type(error).__name__}: {error})"
        if choice == "openvino":
            raise RuntimeUnavailable(f"{reason}; give model.runtime=torch") from error
        return _in_torch(load, precision, reason)
    reasons = [] if fast or precision == "exact" else ["this CPU has no bf16, which fast needs"]
    used: PrecisionChoice = "fast" if fast else "exact"
    name = f"openvino {version('openvino')}, {used}"
    return Opened(student, _with_reasons(name, [*reasons, cache.problem]), used)


def _in_torch(load: Callable[[], Tracker], precision: PrecisionChoice, reason: str = "") -> Opened:
    reasons = [reason]
    if precision == "fast":
        reasons.append("fast needs OpenVINO here")
    return Opened(load(), _with_reasons(f"torch {torch.__version__}, exact", reasons))


def _with_reasons(name: str, reasons: list[str]) -> str:
    said = "; ".join(reason for reason in reasons if reason)
    return f"{name}: {said}" if said else name
