"""A batch of labelled clips, and what one frame of it says.

Shapes: B clips, T frames a clip, G objects a frame at most (padded), P patches, S patch side.
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from model.geometry import to_centres


@dataclass(frozen=True, slots=True)
class ClipBatch:
    """A batch of labelled clips.

    Attributes:
        images: (B, T, 3, H, W) uint8 RGB on the canvas.
        valid: (B, T, 2) height and width in pixels of the picture on the canvas.
        patches: (B, T, P, S, S) uint8.
        boxes: (B, T, G, 4) corners in canvas pixels.
        ids: (B, T, G) int64, the same object the same id through a clip; -1 is padding.
        labels: (B, T, G) int64.
        ignore: (B, T, G) bool: neither object nor background.
        severity: (B, T) of the degradation we applied, 0 for none, -1 where unknown.
        seeds: (B,) int64, for what is drawn while tracking through a clip: the same whoever
            else is in the batch, so that a clip counts alike on one worker and on many.
        names: where each clip came from.
        clean: images before they were degraded, for the teacher; None without one.
    """

    images: Tensor
    valid: Tensor
    patches: Tensor
    boxes: Tensor
    ids: Tensor
    labels: Tensor
    ignore: Tensor
    severity: Tensor
    seeds: Tensor
    names: tuple[str, ...]
    clean: Tensor | None = None

    def to(self, device: torch.device | str) -> "ClipBatch":
        """Return the batch on a device."""
        moved: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in moved.items():
            if isinstance(value, Tensor):
                moved[name] = value.to(device, non_blocking=True)
        return ClipBatch(**moved)


@dataclass(frozen=True, slots=True)
class FrameLabels:
    """One frame of one clip: objects to find, and boxes to leave alone.

    Attributes:
        corners: (G, 4) canvas pixels. centres: (G, 4) centre form in [0, 1].
        ids, labels: (G,) int64.
        ignore: (I, 4) corners in canvas pixels.
    """

    corners: Tensor
    centres: Tensor
    ids: Tensor
    labels: Tensor
    ignore: Tensor


def frame_labels(batch: ClipBatch) -> list[list[FrameLabels]]:
    """Labels of every frame: B lists of T."""
    count, length = batch.images.shape[:2]
    return [[_frame_labels(batch, b, t) for t in range(length)] for b in range(count)]


def labelled_boxes(batch: ClipBatch) -> list[Tensor]:
    """Corners (n, 4) in canvas pixels of the objects that count, for each of the B * T frames."""
    real = (batch.ids >= 0) & ~batch.ignore
    return [b[k] for b, k in zip(batch.boxes.flatten(0, 1), real.flatten(0, 1), strict=True)]


def _frame_labels(batch: ClipBatch, b: int, t: int) -> FrameLabels:
    height, width = batch.images.shape[-2:]
    given = batch.ids[b, t] >= 0
    ignore = batch.ignore[b, t] & given
    real = given & ~ignore
    corners = batch.boxes[b, t][real].float()
    size = corners.new_tensor([width, height, width, height])
    return FrameLabels(
        corners,
        to_centres(corners / size),
        batch.ids[b, t][real],
        batch.labels[b, t][real],
        batch.boxes[b, t][ignore].float(),
    )
