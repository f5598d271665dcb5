"""The loss of a batch of unlabelled frames: distillation, and quality from known severities.

Shapes: N frames, P patches, S patch side, C and Cp the teacher's widths, (h, w) stride 16.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from model.learn.losses import quality_loss
from model.learn.training import Objective
from model.teach.distillation import Distiller
from model.teach.distillation_terms import confident_boxes
from model.teach.teacher import Teacher, TeacherFeatures
from model.track.tracker import Tracker


@dataclass(frozen=True, slots=True)
class FrameBatch:
    """A batch of frames, each as it came and degraded.

    Attributes:
        images: (N, 3, H, W) uint8 RGB on the canvas, degraded: what the student sees.
        clean: (N, 3, H, W) uint8, the same before: what the teacher sees.
        valid: (N, 2) height and width in pixels of the picture on the canvas.
        patches: (N, P, S, S) uint8 of the degraded frame.
        severity: (N,) of the degradation we applied, 0 for none.
        names: the video of each frame.
        features: the teacher's, out of a cache; None if the teacher is to look for itself.
        problems: what could not be read while the batch was made, a line each.
    """

    images: Tensor
    clean: Tensor
    valid: Tensor
    patches: Tensor
    severity: Tensor
    names: tuple[str, ...]
    features: TeacherFeatures | None = None
    problems: tuple[str, ...] = ()

    def to(self, device: torch.device | str) -> "FrameBatch":
        """Return the batch on a device."""
        return self._each(lambda x: x.to(device, non_blocking=True))

    def pin_memory(self) -> "FrameBatch":
        """Return the batch in memory that a GPU copies from while it computes."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "FrameBatch":
        changed: dict[str, Any] = {
            f.name: change(value)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        if self.features is not None:
            f = self.features
            changed["features"] = TeacherFeatures(*map(change, (f.dense, f.pooled, f.valid)))
        return replace(self, **changed)


class DistillObjective(Objective):
    """Distillation alone. Nothing else pulls at the shared layers, so no share is held.

    Args:
        distiller: projectors and terms; trained along.
        teacher: on the tracker's device; None if every batch brings cached features.
    """

    def __init__(self, distiller: Distiller, teacher: Teacher | None) -> None:
        super().__init__()
        self.distiller = distiller
        # In a tuple: as a child it would be trained, averaged and saved with the projectors.
        self._teacher = (teacher,)

    def forward(self, tracker: Tracker, batch: FrameBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss of a batch on the tracker's device, and its terms."""
        memory = tracker.encode(batch.images, batch.valid, batch.patches)
        features, (teacher,) = batch.features, self._teacher
        if features is None:
            if teacher is None:
                raise ValueError("the batch holds no cached features and there is no teacher")
            features = teacher(batch.clean, batch.valid)
        boxes = confident_boxes(memory, self.distiller.config.box_score)
        loss, terms = self.distiller.terms(memory, self.distiller.targets(features), boxes)
        everyone = self.communicator.gather
        quality = quality_loss(everyone(memory.quality), everyone(batch.severity))
        return loss + quality, terms | {"quality": quality.detach()}
