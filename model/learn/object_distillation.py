"""Distillation object by object: the query that finds a person learns what the teacher sees of it.

The teacher sees the clean picture of each labelled person, the student's query found the person in
the degraded frame. Vectors are centred on their mean over people, because what all people have in
common tells nobody apart.

Shapes: N frames, K detection queries, G objects a frame at most (padded), D width, E the teacher's
width.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.communicator import Communicator
from model.learn.clip_batch import ClipBatch, FrameLabels, frame_labels
from model.net.geometry import coverage
from model.teach.config import DistillationConfig
from model.teach.gradient_share import GradientShare
from model.teach.teacher import ObjectTeacher, TeacherError
from model.track.frames import EncodedFrames

_LEAST_HEIGHT = 24.0  # pixels of a person on the canvas; of less the teacher sees nothing
_COVERED = 0.6  # share of a box inside another one from which on it may show the other person
_PEOPLE = 256  # that suffice for their mean


class ObjectDistiller(GradientShare):
    """A projector to the teacher's width, and `1 - cos` between query and teacher.

    The share of its gradient is taken on the embedding of the detections.

    Args:
        config: settings.
        dim: the student's D.
        teacher: of people; it is not trained.
        mean: (E,) of the teacher's vectors, see `mean_vector`.
    """

    mean: Tensor

    def __init__(
        self, config: DistillationConfig, dim: int, teacher: ObjectTeacher, mean: Tensor
    ) -> None:
        super().__init__(config.share)
        self.teacher = teacher.info
        # In a tuple: as a child it would be trained, averaged and saved with the projector.
        self._teacher = (teacher,)
        self.project = nn.Linear(dim, teacher.info.dim)
        self.register_buffer("mean", mean.clone())

    def forward(
        self, batch: ClipBatch, encoded: EncodedFrames, matched: Tensor, workers: Communicator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss times its weight, to be added to the task's; call `after_backward` next.

        Args:
            batch: with clean frames.
            encoded: its frames, degraded.
            matched: (N, K) object of each detection query, -1 for none.
            workers: all that share the batch. The loss is a mean over the people of all.

        Raises:
            ValueError: the batch has no clean frames.
        """
        labels = frame_labels(batch)
        vectors = _vectors(self._teacher[0], batch, labels)
        people = shown(labels)
        wanted = torch.zeros(*people.shape, vectors.shape[1], device=people.device)
        wanted[people] = vectors - self.mean
        embedding = encoded.detections.embedding
        # In float32: cosines of long vectors are too coarse in bfloat16.
        with torch.autocast(embedding.device.type, enabled=False):
            found = self.project(embedding.float())
        index = matched.clamp(min=0)
        known = (matched >= 0) & people.gather(1, index)
        picked = wanted.gather(1, index[..., None].expand(-1, -1, wanted.shape[2]))
        distance = (1 - F.cosine_similarity(found, picked, dim=2)) * known
        count = workers.mean(known.sum().float()).clamp(min=1.0 / workers.world)
        loss = distance.sum() / count
        return self.weighted(loss, embedding), {"identity": loss.detach()}


def shown(labels: FrameLabels) -> Tensor:
    """Mark objects (N, G) that are tall enough and mostly not behind or before another one."""
    boxes = labels.corners
    height = boxes[..., 3] - boxes[..., 1]
    itself = torch.eye(boxes.shape[1], dtype=torch.bool, device=boxes.device)
    covered = (coverage(boxes, boxes) > _COVERED) & labels.real[:, None] & ~itself
    return labels.real & (height >= _LEAST_HEIGHT) & ~covered.any(2)


@torch.no_grad()
def mean_vector(teacher: ObjectTeacher, batches: Iterable[ClipBatch]) -> Tensor:
    """Mean (E,) of a teacher's vectors of some people, on the CPU.

    Args:
        teacher: of people.
        batches: of clips with clean frames; no more are read than needed.

    Raises:
        TeacherError: there is nobody to see in them.
    """
    found: list[Tensor] = []
    for batch in batches:
        found.append(_vectors(teacher, batch, frame_labels(batch)).cpu())
        if sum(map(len, found)) >= _PEOPLE:
            break
    vectors = torch.cat(found) if found else torch.zeros(0, teacher.info.dim)
    if not len(vectors):
        raise TeacherError(
            f"teacher {teacher.info.id}: the first clips show nobody of {_LEAST_HEIGHT:g} pixels "
            "or more, so there is nobody to learn from; give larger clips.height and clips.width"
        )
    return vectors.mean(0)


def _vectors(teacher: ObjectTeacher, batch: ClipBatch, labels: FrameLabels) -> Tensor:
    """The teacher's vectors of the people that `shown` marks, in its order."""
    if batch.clean is None:
        raise ValueError("a teacher of people needs batches with clean frames")
    people = shown(labels)
    frames, _ = people.nonzero(as_tuple=True)
    scale = batch.clean.shape[-1] / batch.images.shape[-1]
    return teacher(batch.clean.flatten(0, 1), frames, labels.corners[people] * scale)
