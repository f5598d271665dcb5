"""Training of parts of a student while the rest of it stays as it is.

Semantics, quality and tracks are computed from features of the backbone and the encoder. Trained
alone they need no gradient through these. So many more frames are seen in the same time, and clips
can be long enough for people to go out of sight and come back.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from model.learn.clip_batch import labelled_boxes
from model.learn.clip_loss import association_loss
from model.learn.losses import quality_loss
from model.learn.training import Objective
from model.net.quality import frame_statistics
from model.teach.distillation import Distiller
from model.teach.teacher import Teacher
from model.track.tracker import Tracker

PARTS = {
    "quality": ("quality",),
    "semantics": ("semantics",),
    "tracks": ("transport", "track_decoder", "memory"),
}
"""Modules of the tracker by the name of the part."""


class PartObjective(Objective):
    """Loss of the parts to be trained: quality, semantics, tracks.

    Args:
        parts: out of `PARTS`.
        distiller: projectors and terms, trained along; for semantics.
        teacher: on the tracker's device; for semantics.
    """

    def __init__(
        self,
        parts: Sequence[str],
        distiller: Distiller | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.parts, self.distiller = tuple(parts), distiller
        # In a tuple: as a child it would be trained, averaged and saved with the projectors.
        self._teacher = (teacher,)

    def forward(self, tracker: Tracker, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch of clips (B, T, …) on the tracker's device, and its terms."""
        loss = torch.zeros((), device=batch.images.device)
        terms: dict[str, Tensor] = {}
        if "tracks" in self.parts:
            loss, values = association_loss(tracker, batch, self.communicator)
            terms = {name: value.detach() for name, value in values.items()}
        if set(self.parts) == {"tracks"}:
            return loss, terms
        valid = batch.valid.flatten(0, 1)
        with torch.no_grad():
            features = tracker.features(batch.images.flatten(0, 1), valid)
        percept = tracker.describe(features, frame_statistics(batch.patches.flatten(0, 1)))
        if "quality" in self.parts:
            gather = self.communicator.gather
            quality = quality_loss(gather(percept.quality), gather(batch.severity.flatten()))
            loss, terms = loss + quality, terms | {"quality": quality.detach()}
        if "semantics" in self.parts:
            (teacher,) = self._teacher
            if self.distiller is None or teacher is None or batch.clean is None:
                raise ValueError("semantics needs a teacher, and batches with clean frames")
            wanted = self.distiller.targets(teacher(batch.clean.flatten(0, 1), valid))
            semantics, more = self.distiller.terms(percept, wanted, labelled_boxes(batch))
            loss, terms = loss + semantics, terms | more
        return loss, terms


def train_only(tracker: Tracker, parts: Sequence[str]) -> None:
    """Train these parts alone."""
    tracker.requires_grad_(False)
    for part in parts:
        for module in PARTS[part]:
            getattr(tracker, module).requires_grad_(True)
