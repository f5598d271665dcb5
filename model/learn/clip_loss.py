"""The loss of a batch of clips: what detections find in every frame, and tracks through them.

Shapes: B clips, T frames a clip, G objects a frame at most (padded), K detection queries.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from model.communicator import Communicator
from model.learn.clip_batch import ClipBatch, FrameLabels, frame_labels, labelled_boxes
from model.learn.losses import dense_loss, ignored, quality_loss
from model.learn.matching import assign_dense
from model.learn.query_terms import match_detections, query_terms, whole_terms
from model.learn.track_loss import track_terms
from model.learn.training import Objective
from model.teach.distillation import Distiller
from model.teach.teacher import Teacher
from model.track.tracker import Memory, Tracker

WEIGHTS = {
    "dense_class": 1.0,
    "dense_giou": 2.0,
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
"""Weight of each term; those of the decoders' boxes are Deformable DETR's."""


def clip_loss(
    tracker: Tracker, batch: ClipBatch, workers: Communicator
) -> tuple[Tensor, dict[str, Tensor], Memory]:
    """Total loss of a batch, its terms before weighting, and the memory of its B * T frames.

    Args:
        tracker: in training mode.
        batch: on the tracker's device.
        workers: who share the batch; its loss is divided by the objects of all of them.
    """
    memory = _encode(tracker, batch)
    labels = frame_labels(batch)
    canvas = _canvas(batch)
    totals = _dense_terms(memory, labels)
    # A batch counts as one object at least: one in all, whoever shares it.
    mass = workers.mean(totals.pop("mass").detach()).clamp(min=1.0 / workers.world)
    terms = {name: value / mass for name, value in totals.items()}

    found = match_detections(memory.detections, labels)
    live = torch.ones(found.shape[1:], dtype=torch.bool, device=found.device)
    sums = query_terms(memory.detections, found, live, labels, canvas, ~labels.whole)
    sums |= whole_terms(memory.whole, found[-1], labels)
    sums |= track_terms(tracker, memory, found[-1], labels, batch.seeds, canvas)
    objects = _objects(labels, workers)
    terms |= {name: value / objects for name, value in sums.items()}

    everyone = workers.gather
    severity = everyone(batch.severity.flatten())
    terms["quality"] = quality_loss(everyone(memory.quality), severity)
    return _weighted(terms), terms, memory


def association_loss(
    tracker: Tracker, batch: ClipBatch, workers: Communicator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of the tracks alone, and its terms before weighting; frames get no gradient.

    Arguments as of `clip_loss`; clips of one frame have nothing to lose.
    """
    with torch.no_grad():
        memory = _encode(tracker, batch)
    labels = frame_labels(batch)
    found = match_detections(memory.detections, labels)[-1]
    sums = track_terms(tracker, memory, found, labels, batch.seeds, _canvas(batch))
    objects = _objects(labels, workers)
    terms = {name: value / objects for name, value in sums.items()}
    return _weighted(terms), terms


class ClipObjective(Objective):
    """Tracking through labelled clips, with distillation beside it or without.

    Args:
        distiller: projectors and terms; trained along. None trains without a teacher.
        teacher: what it learns from, on the tracker's device; batches bring clean frames.
    """

    def __init__(self, distiller: Distiller | None = None, teacher: Teacher | None = None) -> None:
        super().__init__()
        self.distiller = distiller
        # In a tuple: as a child it would be trained, averaged and saved with the projectors.
        self._teacher = (teacher,)

    def forward(self, tracker: Tracker, batch: ClipBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss of a batch on the tracker's device, and its terms.

        Raises:
            ValueError: there is a distiller, but no teacher or no clean frames.
        """
        total, terms, memory = clip_loss(tracker, batch, self.communicator)
        shown = {name: value.detach() for name, value in terms.items()}
        if self.distiller is None:
            return total, shown
        (teacher,) = self._teacher
        if teacher is None or batch.clean is None:
            raise ValueError("distillation needs a teacher, and batches with clean frames")
        features = teacher(batch.clean.flatten(0, 1), batch.valid.flatten(0, 1))
        wanted = self.distiller.targets(features)
        loss, parts = self.distiller(memory, wanted, labelled_boxes(batch))
        return total + loss, shown | parts

    def after_backward(self, mean: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Hold the share of gradient that distillation has."""
        return {} if self.distiller is None else self.distiller.after_backward(mean)


def _encode(tracker: Tracker, batch: ClipBatch) -> Memory:
    return tracker.encode(
        batch.images.flatten(0, 1), batch.valid.flatten(0, 1), batch.patches.flatten(0, 1)
    )


def _canvas(batch: ClipBatch) -> tuple[int, int]:
    return batch.images.shape[-2], batch.images.shape[-1]


def _objects(labels: FrameLabels, workers: Communicator) -> Tensor:
    """Objects of the whole batch for each worker, as losses are averaged over them; one in all."""
    return workers.mean(labels.real.sum().float()).clamp(min=1.0 / workers.world)


def _weighted(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack([WEIGHTS[name] * value for name, value in terms.items()]).sum()


def _dense_terms(memory: Memory, labels: FrameLabels) -> dict[str, Tensor]:
    dense = memory.dense
    index, quality = assign_dense(
        dense.logits.detach().sigmoid(),
        dense.boxes.detach(),
        dense.centres,
        dense.strides,
        labels.corners,
        labels.labels,
        labels.real,
    )
    counted = dense.valid & ~ignored(dense.boxes.detach(), labels.corners, labels.ignore)
    terms = dense_loss(
        dense.logits,
        dense.boxes,
        index,
        quality,
        labels.corners,
        labels.labels,
        counted,
        ~labels.whole,
    )
    mass = terms.pop("mass")
    return {"mass": mass} | {f"dense_{name}": value for name, value in terms.items()}
