"""What a GPU computes the dense part of the student in; boxes and coordinates are in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

if TYPE_CHECKING:
    from model.track.tracker import Tracker


Precision = Literal["fp32", "tf32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16")


def usable_precision(wanted: Precision, device: torch.device) -> tuple[Precision, str]:
    """The precision that a device computes in, and why it is not the wanted one ("" if it is)."""
    if wanted != "bf16" or device.type != "cuda":
        return wanted, ""
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return wanted, ""
    name = torch.cuda.get_device_name(device)
    return "fp32", f"{name} is too old for bf16, so it computes in fp32"


def set_up(tracker: Tracker, precision: Precision) -> None:
    """Set a tracker in eval mode up for a precision; the settings of torch hold for the process.

    For bf16 the weights of the dense part are rounded once. Autocast would round them in every
    call.
    """
    tf32 = precision == "tf32"
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    # All batches have one shape, so kernels are chosen by measurement, once.
    torch.backends.cudnn.benchmark = True
    for module in _dense_part(tracker):
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                layer.to(memory_format=torch.channels_last)
            if precision == "bf16" and isinstance(layer, nn.Conv2d | nn.Linear):
                layer.to(torch.bfloat16)


@contextmanager
def dense_autocast(precision: Precision, device: torch.device) -> Iterator[None]:
    """Autocast for the dense part; without effect unless the precision is bf16."""
    enabled = precision == "bf16"
    # Without a cache, because a CUDA graph would keep the cached copy of its recording.
    with torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=False):
        yield


def _dense_part(tracker: Tracker) -> tuple[nn.Module, ...]:
    """All up to the towers of the dense head, but for the quality of frames."""
    t = tracker
    towers = t.head.class_tower, t.head.box_tower
    return (t.backbone, t.encoder, t.semantics, t.semantic_memory, t.fusion, *towers)
