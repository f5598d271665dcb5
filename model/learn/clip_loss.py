"""The loss of a batch of clips: of detections in every frame, and of tracks through the clips.

Shapes: B clips, T frames a clip, G objects a frame at most (padded), K detection queries.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from model.communicator import Communicator
from model.learn.clip_batch import ClipBatch, FrameLabels, frame_labels, labelled_boxes
from model.learn.losses import (
    dense_loss,
    match_detections,
    quality_loss,
    query_loss,
    whole_loss,
)
from model.learn.object_distillation import ObjectDistiller
from model.learn.track_loss import track_terms
from model.learn.training import Objective
from model.teach.distillation import Distiller
from model.teach.teacher import Teacher
from model.track.frames import EncodedFrames
from model.track.tracker import Tracker

WEIGHTS = {
    "dense_class": 1.0,
    "dense_giou": 5.0,
    "class": 1.0,
    "l1": 5.0,
    "giou": 2.0,
    "whole_l1": 5.0,
    "whole_giou": 2.0,
    "track_class": 1.0,
    "track_l1": 5.0,
    "track_giou": 2.0,
    "associate": 1.0,
    "quality": 1.0,
}
"""Weight of each term; those of the decoders' boxes are from Deformable DETR."""


@dataclass(frozen=True, slots=True)
class ClipLoss:
    """The loss of a batch, and what was found out on the way.

    Attributes:
        total: the loss.
        terms: its terms before weighting.
        encoded: the B * T frames.
        matched: (B * T, K) object of each query of the last layer of detections, -1 for none.
    """

    total: Tensor
    terms: dict[str, Tensor]
    encoded: EncodedFrames
    matched: Tensor


def clip_loss(tracker: Tracker, batch: ClipBatch, workers: Communicator) -> ClipLoss:
    """The loss of detections in all frames of a batch, and of tracks through its clips.

    Args:
        tracker: in training mode.
        batch: on the tracker's device.
        workers: all that share the batch. The loss is divided by the objects of the whole batch.
    """
    encoded, labels, canvas = _encode(tracker, batch), frame_labels(batch), _canvas(batch)
    totals = dense_loss(encoded.dense, labels)
    # The whole batch, over all workers, counts as one object at least.
    mass = workers.mean(totals.pop("mass").detach()).clamp(min=1.0 / workers.world)
    terms = {f"dense_{name}": value / mass for name, value in totals.items()}

    found = match_detections(encoded.detections, labels)
    live = torch.ones(found.shape[1:], dtype=torch.bool, device=found.device)
    sums = query_loss(encoded.detections, found, live, labels, canvas, labels.seen)
    whole = whole_loss(encoded.people.boxes[-1], found[-1], labels)
    sums |= {f"whole_{name}": value for name, value in whole.items()}
    sums |= track_terms(tracker, encoded, found[-1], labels, batch.seeds, canvas)
    objects = _objects(labels, workers)
    terms |= {name: value / objects for name, value in sums.items()}

    severity = workers.gather(batch.severity.flatten())
    terms["quality"] = quality_loss(workers.gather(encoded.quality), severity)
    return ClipLoss(_weighted(terms), terms, encoded, found[-1])


def association_loss(
    tracker: Tracker, batch: ClipBatch, workers: Communicator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of the tracks alone, and its terms before weighting; encoding gets no gradient.

    Arguments are those of `clip_loss`. Clips of one frame have no terms.
    """
    with torch.no_grad():
        encoded = _encode(tracker, batch)
    labels = frame_labels(batch)
    found = match_detections(encoded.detections, labels)[-1]
    sums = track_terms(tracker, encoded, found, labels, batch.seeds, _canvas(batch))
    objects = _objects(labels, workers)
    terms = {name: value / objects for name, value in sums.items()}
    return _weighted(terms), terms


class ClipObjective(Objective):
    """Tracking through labelled clips, with or without distillation.

    Args:
        distiller: projectors and terms, trained along; None for no distillation.
        teacher: of the distillation, on the tracker's device; batches then need clean frames.
        objects: distillation from a teacher of people, trained along; None for none.
    """

    def __init__(
        self,
        distiller: Distiller | None = None,
        teacher: Teacher | None = None,
        objects: ObjectDistiller | None = None,
    ) -> None:
        super().__init__()
        self.distiller, self.objects = distiller, objects
        # In a tuple: as a child it would be trained, averaged and saved with the projectors.
        self._teacher = (teacher,)

    def forward(self, tracker: Tracker, batch: ClipBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss of a batch on the tracker's device, and its terms.

        Raises:
            ValueError: there is a distiller, but no teacher or no clean frames.
        """
        found = clip_loss(tracker, batch, self.communicator)
        total, encoded = found.total, found.encoded
        shown = {name: value.detach() for name, value in found.terms.items()}
        if self.objects is not None:
            loss, parts = self.objects(batch, encoded, found.matched, self.communicator)
            total, shown = total + loss, shown | parts
        if self.distiller is None:
            return total, shown
        (teacher,) = self._teacher
        if teacher is None or batch.clean is None:
            raise ValueError("distillation needs a teacher, and batches with clean frames")
        features = teacher(batch.clean.flatten(0, 1), batch.valid.flatten(0, 1))
        wanted = self.distiller.targets(features)
        loss, parts = self.distiller(encoded, wanted, labelled_boxes(batch))
        return total + loss, shown | parts

    def after_backward(self, mean: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Adjust the weight of distillation to its share of the gradient."""
        shares = (x.after_backward(mean) for x in (self.distiller, self.objects) if x is not None)
        return {name: value for share in shares for name, value in share.items()}


def _encode(tracker: Tracker, batch: ClipBatch) -> EncodedFrames:
    return tracker.encode(
        batch.images.flatten(0, 1), batch.valid.flatten(0, 1), batch.patches.flatten(0, 1)
    )


def _canvas(batch: ClipBatch) -> tuple[int, int]:
    return batch.images.shape[-2], batch.images.shape[-1]


def _objects(labels: FrameLabels, workers: Communicator) -> Tensor:
    """Objects of the whole batch, at least one, per worker: losses of workers are averaged."""
    return workers.mean(labels.real.sum().float()).clamp(min=1.0 / workers.world)


def _weighted(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack([WEIGHTS[name] * value for name, value in terms.items()]).sum()
