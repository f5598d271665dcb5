"""The weights and what computes them: the student is opened and sees a frame."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.doctor.config import DoctorConfig
from pipeline.doctor.finding import Finding, ok, problem, warning
from pipeline.storage.errors import StorageError
from pipeline.storage.secrets import mask_secrets


def check_student(config: DoctorConfig) -> Iterable[Finding]:
    """Open the weights in the runtime of a run on CPUs, and encode an empty frame."""
    from model.track.checkpoint import CheckpointError
    from pipeline.tracking.track_video import TrackSettings, open_runtime

    shown = mask_secrets(config.weights)
    remedy = "copy the file again, or give weights=FILE; vsdmot comes with vsdmot-nano"
    remote = "://" in config.weights
    weights = config.weights if remote else str(Path(config.weights).absolute())
    try:
        with tempfile.TemporaryDirectory() as folder:
            opened = open_runtime(TrackSettings(weights, graph_folder=folder))
            seen = _people_in_nothing(opened.model)
    except (CheckpointError, StorageError) as error:
        yield problem("weights", mask_secrets(str(error)), remedy)
        return
    yield ok("weights", f"{shown} can be read")
    yield runtime(f"{opened.runtime}, {seen} people in an empty frame")


def runtime(found: str) -> Finding:
    """What the student runs in on CPUs; PyTorch works, and is slower than OpenVINO."""
    if found.startswith("openvino"):
        return ok("runtime", found)
    there = find_spec("openvino") is not None
    remedy = "install OpenVINO again" if there else "pip install openvino"
    return warning("runtime", f"{found}: slower on CPUs", remedy)


def _people_in_nothing(model: Any) -> int:
    """Track one black frame; returns the number of people in it."""
    import torch

    from model.net.quality import PATCH, PATCHES

    height, width = model.config.input_height, model.config.input_width
    with torch.inference_mode():
        encoded = model.encode(
            torch.zeros((1, 3, height, width), dtype=torch.uint8),
            torch.tensor([[height, width]]),
            torch.zeros((1, PATCHES, PATCH, PATCH), dtype=torch.uint8),
        )
        results, _ = model.track(encoded, model.initial_state(1))
    return int((results[0].track_id >= 0).sum())
