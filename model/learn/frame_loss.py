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


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameBatch:
    """A batch of frames, each clean and degraded.

    Attributes:
        images: (N, 3, H, W) uint8 RGB on the canvas, degraded: input of the student.
        clean: (N, 3, sH, sW) uint8, the same before degradation, s times as large: input of the
            teacher.
        valid: (N, 2) height and width in pixels of the picture on the canvas.
        patches: (N, P, S, S) uint8 of the degraded frame.
        severity: (N,) of the degradation we applied, 0 for none.
        names: the video of each frame.
        features: the teacher's, from a cache; None if the teacher computes them.
        problems: a line for each picture that could not be read.
    """

    images: Tensor
    clean: Tensor
    valid: Tensor
    patches: Tensor
    severity: Tensor
    names: tuple[str, ...]
    features: TeacherFeatures | None = None
    problems: tuple[str, ...] = ()

    @property
    def single(self) -> bool:
        """Its frames are of different scenes."""
        return True

    def to(self, device: torch.device | str) -> "FrameBatch":
        """Return the batch on a device."""
        return self._each(lambda x: x.to(device, non_blocking=True))

    def pin_memory(self) -> "FrameBatch":
        """Return the batch in page-locked memory, from which copies to a GPU are asynchronous."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "FrameBatch":
        changed: dict[str, Any] = {
            f.name: change(value)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        if self.features is not None:
            changed["features"] = self.features.each(change)
        return replace(self, **changed)


class DistillObjective(Objective):
    """Distillation alone. It has the whole gradient of the shared layers, so its weight is 1.

    Args:
        distiller: projectors and terms; trained along.
        teacher: on the tracker's device; None if every batch has cached features.
    """

    def __init__(self, distiller: Distiller, teacher: Teacher | None) -> None:
        super().__init__()
        self.distiller = distiller
        # In a tuple: as a child it would be trained, averaged and saved with the projectors.
        self._teacher = (teacher,)

    def forward(self, tracker: Tracker, batch: FrameBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss of a batch on the tracker's device, and its terms."""
        encoded = tracker.encode(batch.images, batch.valid, batch.patches)
        features, (teacher,) = batch.features, self._teacher
        if features is None:
            if teacher is None:
                raise ValueError("the batch holds no cached features and there is no teacher")
            features = teacher(batch.clean, batch.valid)
        boxes = confident_boxes(encoded, self.distiller.config.box_score)
        loss, terms = self.distiller.terms(encoded, self.distiller.targets(features), boxes)
        gather = self.communicator.gather
        quality = quality_loss(gather(encoded.quality), gather(batch.severity))
        return loss + quality, terms | {"quality": quality.detach()}
