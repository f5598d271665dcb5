"""A batch of labelled clips, and the labels of its frames.

Shapes: B clips, T frames a clip, G objects a frame at most (padded), P patches, S patch side.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from model.net.geometry import to_centres


class Extent(IntEnum):
    """What a labelled box shows of a person.

    SEEN is the visible part. WHOLE is the whole person, hidden parts included; such boxes leave
    room above the head even if nothing is hidden. LOOSE says that somebody is there, but not where
    the person ends: nobody learns the place of a box from it.
    """

    SEEN = 0
    WHOLE = 1
    LOOSE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipBatch:
    """A batch of labelled clips.

    Attributes:
        images: (B, T, 3, H, W) uint8 RGB on the canvas.
        valid: (B, T, 2) height and width in pixels of the picture on the canvas.
        patches: (B, T, P, S, S) uint8.
        boxes: (B, T, G, 4) corners in canvas pixels.
        ids: (B, T, G) int64, the same object the same id through a clip; -1 is padding.
        labels: (B, T, G) int64.
        ignore: (B, T, G) bool: the box counts as neither object nor background.
        extent: (B, T, G) uint8, an `Extent` for each box.
        severity: (B, T) of the degradation we applied, 0 for none, -1 where unknown.
        seeds: (B,) int64, for random draws while tracking through a clip. They belong to the
            clip, so its loss does not depend on the rest of the batch or on the worker.
        names: where each clip came from.
        clean: (B, T, 3, sH, sW) images before they were degraded, for the teacher, s times as
            large; None without one.
        problems: lines about pictures that could not be read.
    """

    images: Tensor
    valid: Tensor
    patches: Tensor
    boxes: Tensor
    ids: Tensor
    labels: Tensor
    ignore: Tensor
    extent: Tensor
    severity: Tensor
    seeds: Tensor
    names: tuple[str, ...]
    clean: Tensor | None = None
    problems: tuple[str, ...] = ()

    @property
    def single(self) -> bool:
        """Whether its clips have one frame each."""
        return self.images.shape[1] == 1

    def to(self, device: torch.device | str) -> "ClipBatch":
        """Return the batch on a device; seeds stay on the host, where they are used."""
        moved = self._each(lambda x: x.to(device, non_blocking=True))
        return replace(moved, seeds=self.seeds)

    def pin_memory(self) -> "ClipBatch":
        """Return the batch in page-locked memory, from which copies to a GPU are asynchronous."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "ClipBatch":
        changed: dict[str, Any] = {
            f.name: change(value)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **changed)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameLabels:
    """Labels of N frames; rows of objects are padded to one length.

    Attributes:
        corners: (N, G, 4) canvas pixels. centres: (N, G, 4) centre form in [0, 1].
        ids, labels: (N, G) int64.
        real: (N, G) bool: an object to find, neither padding nor ignored.
        ignore: (N, G) bool: the box counts as neither object nor background.
        extent: (N, G) uint8, an `Extent` for each box.
    """

    corners: Tensor
    centres: Tensor
    ids: Tensor
    labels: Tensor
    real: Tensor
    ignore: Tensor
    extent: Tensor

    @property
    def seen(self) -> Tensor:
        """(N, G) bool: the box is of the visible part."""
        return self.extent == Extent.SEEN

    @property
    def whole(self) -> Tensor:
        """(N, G) bool: the box is of the whole person."""
        return self.extent == Extent.WHOLE

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
        corners=corners,
        centres=to_centres(corners / corners.new_tensor([width, height, width, height])),
        ids=ids,
        labels=batch.labels.flatten(0, 1),
        real=given & ~ignored,
        ignore=given & ignored,
        extent=batch.extent.flatten(0, 1),
    )


def labelled_boxes(batch: ClipBatch) -> list[Tensor]:
    """Corners (n, 4) in canvas pixels of the objects that count, for each of the B * T frames."""
    real = (batch.ids >= 0) & ~batch.ignore
    return [b[k] for b, k in zip(batch.boxes.flatten(0, 1), real.flatten(0, 1), strict=True)]
