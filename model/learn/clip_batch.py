"""A batch of labelled clips, and what one frame of it says.

Shapes: B clips, T frames a clip, G objects a frame at most (padded), P patches, S patch side.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from model.net.geometry import to_centres


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
        whole: (B, T, G) bool: the box is of the whole person, also where hidden; False: of what
            is seen.
        severity: (B, T) of the degradation we applied, 0 for none, -1 where unknown.
        seeds: (B,) int64, for what is drawn while tracking through a clip: the same whoever
            else is in the batch, so that a clip counts alike on one worker and on many.
        names: where each clip came from.
        clean: images before they were degraded, for the teacher; None without one.
        problems: lines about pictures that could not be read.
    """

    images: Tensor
    valid: Tensor
    patches: Tensor
    boxes: Tensor
    ids: Tensor
    labels: Tensor
    ignore: Tensor
    whole: Tensor
    severity: Tensor
    seeds: Tensor
    names: tuple[str, ...]
    clean: Tensor | None = None
    problems: tuple[str, ...] = ()

    def to(self, device: torch.device | str) -> "ClipBatch":
        """Return the batch on a device; seeds stay on the host, which is where they are used."""
        moved = self._each(lambda x: x.to(device, non_blocking=True))
        return replace(moved, seeds=self.seeds)

    def pin_memory(self) -> "ClipBatch":
        """Return the batch in memory that a GPU copies from while it computes."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "ClipBatch":
        changed: dict[str, Any] = {
            f.name: change(value)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **changed)


@dataclass(frozen=True, slots=True)
class FrameLabels:
    """What is in N frames; rows of objects are padded to one length.

    Attributes:
        corners: (N, G, 4) canvas pixels. centres: (N, G, 4) centre form in [0, 1].
        ids, labels: (N, G) int64.
        real: (N, G) bool: an object to find; neither padding nor ignored.
        ignore: (N, G) bool: a box to leave alone, neither object nor background.
        whole: (N, G) bool: the box is of the whole person, else of what is seen. Even of somebody
            in the open the two differ: sources of whole boxes leave some room above the head.
    """

    corners: Tensor
    centres: Tensor
    ids: Tensor
    labels: Tensor
    real: Tensor
    ignore: Tensor
    whole: Tensor

    def __getitem__(self, index: slice | Tensor) -> "FrameLabels":
        """Take frames by a slice or by an index tensor."""
        return FrameLabels(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def __len__(self) -> int:
        return len(self.ids)


def frame_labels(batch: ClipBatch) -> FrameLabels:
    """Labels of all B * T frames, clip by clip."""
    height, width = batch.images.shape[-2:]
    corners = batch.boxes.flatten(0, 1).float()
    ids, ignored = batch.ids.flatten(0, 1), batch.ignore.flatten(0, 1)
    given = ids >= 0
    return FrameLabels(
        corners,
        to_centres(corners / corners.new_tensor([width, height, width, height])),
        ids,
        batch.labels.flatten(0, 1),
        given & ~ignored,
        given & ignored,
        batch.whole.flatten(0, 1),
    )


def labelled_boxes(batch: ClipBatch) -> list[Tensor]:
    """Corners (n, 4) in canvas pixels of the objects that count, for each of the B * T frames."""
    real = (batch.ids >= 0) & ~batch.ignore
    return [b[k] for b, k in zip(batch.boxes.flatten(0, 1), real.flatten(0, 1), strict=True)]
