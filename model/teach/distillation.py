"""Dual-constraint semantic distillation (DCSD): the student learns to see what the teacher sees.

The student sees the degraded frame, the teacher the clean one. Local constraint: position by
position. Global constraint: the scene, and which scenes are like which; `distillation_terms` has
them. The projectors to the teacher's width live here, so the shipped student has none of them.

Shapes: N frames, S semantic width, C and Cp widths of the teacher's dense and pooled features,
(h, w) the stride-16 map.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from model.communicator import Communicator
from model.teach.distillation_terms import box_weights, local_loss, pooled_loss, relation_loss
from model.teach.teacher import TeacherFeatures, TeacherInfo
from model.teach.teacher_statistics import TeacherStatistics
from model.track.tracker import Memory

_FORGET = 0.9  # of the gradient norms from one step to the next
_WEIGHT_RANGE = (1e-4, 1e4)


@dataclass(frozen=True, slots=True)
class DistillationConfig:
    """How distillation pulls.

    Attributes:
        share: of the gradient on the shared layers that is distillation's, beside the task's.
        local, pooled, relation: weights of the terms among themselves.
        box_weight: weight of a position inside an object's box; outside it is 1.
        box_score: score from which the tracker's own boxes count where there are no labels.
        temperature: of the similarities in the relation term; low looks at the nearest only.
    """

    share: float = 0.12
    local: float = 1.0
    pooled: float = 0.5
    relation: float = 0.5
    box_weight: float = 4.0
    box_score: float = 0.5
    temperature: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share must lie between 0 and 1, got {self.share}")
        if self.temperature <= 0 or self.box_weight <= 0:
            raise ValueError(
                f"temperature and box_weight must be positive, got {self.temperature} and "
                f"{self.box_weight}"
            )


@dataclass(frozen=True, slots=True)
class TeacherTargets:
    """What the teacher sees in the clean frames, normalised.

    Attributes:
        dense: (N, C, h, w). pooled: (N, Cp).
        valid: (N, h, w) bool, False on padding and in frames whose dense features are not known.
    """

    dense: Tensor
    pooled: Tensor
    valid: Tensor


class Semantics(Protocol):
    """What a student makes of N frames: map (N, S, h, w) at stride 16, and vector (N, S)."""

    @property
    def semantic_map(self) -> Tensor: ...  # noqa: D102
    @property
    def scene(self) -> Tensor: ...  # noqa: D102


class Distiller(nn.Module):
    """Projectors to the teacher's width, the three terms, and the weight that they get.

    The weight is such that distillation has the configured share of the gradient on
    `memory.visual`, the activation the semantic branch leaves from: exact, cheap (only the
    branch is gone through once more), and independent of how losses are scaled.

    Args:
        config: how it pulls.
        semantic_dim: the student's S.
        teacher: the teacher it is made for.
        statistics: of that teacher's features; None if a state dict will bring them.
    """

    dense_mean: Tensor
    dense_scale: Tensor
    pooled_mean: Tensor
    pooled_scale: Tensor
    weight: Tensor
    norms: Tensor

    def __init__(
        self,
        config: DistillationConfig,
        semantic_dim: int,
        teacher: TeacherInfo,
        statistics: TeacherStatistics | None = None,
    ) -> None:
        super().__init__()
        self.config, self.teacher, self.semantic_dim = config, teacher, semantic_dim
        self.project_dense = nn.Conv2d(semantic_dim, teacher.dense_dim, 1)
        self.project_pooled = nn.Linear(semantic_dim, teacher.pooled_dim)
        s = statistics or TeacherStatistics(
            torch.zeros(teacher.dense_dim),
            torch.ones(teacher.dense_dim),
            torch.zeros(teacher.pooled_dim),
            torch.ones(teacher.pooled_dim),
        )
        for name in ("dense_mean", "dense_scale", "pooled_mean", "pooled_scale"):
            self.register_buffer(name, getattr(s, name).clone())
        self.register_buffer("weight", torch.ones(()))
        # Squared norms on memory.visual, averaged over steps: the task's, distillation's.
        self.register_buffer("norms", torch.zeros(2))
        self._pull: Tensor | None = None
        self._total: Tensor | None = None

    def targets(self, features: TeacherFeatures) -> TeacherTargets:
        """Normalise what the teacher said."""
        dense = (features.dense - self.dense_mean[:, None, None]) / self.dense_scale[:, None, None]
        pooled = (features.pooled - self.pooled_mean) / self.pooled_scale
        return TeacherTargets(dense, pooled, features.valid)

    def project(self, memory: Semantics) -> tuple[Tensor, Tensor]:
        """The student's dense map (N, C, h, w) and vector (N, Cp) in the teacher's space."""
        # Cosines of long vectors in bfloat16 would lose what is being learned.
        with torch.autocast(memory.scene.device.type, enabled=False):
            dense = self.project_dense(memory.semantic_map.float())
            return dense, self.project_pooled(memory.scene.float())

    def terms(
        self, memory: Semantics, targets: TeacherTargets, boxes: Sequence[Tensor] | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss before it is weighted against other losses, and its terms for the log.

        Args:
            memory: of N degraded frames.
            targets: of the same frames, clean. Every worker brings equally many.
            boxes: for each frame (n, 4) corners in canvas pixels, of objects; None weighs all
                positions alike.

        Raises:
            ValueError: student and teacher maps differ in size.
        """
        if targets.dense.shape[2:] != memory.semantic_map.shape[2:]:
            raise ValueError(
                f"teacher {self.teacher.id} gives maps of {tuple(targets.dense.shape[2:])}, the "
                f"student of {tuple(memory.semantic_map.shape[2:])}; both must see one canvas"
            )
        c, workers = self.config, Communicator()
        dense, pooled = self.project(memory)
        weight = torch.ones_like(dense[:, 0])
        if boxes is not None:
            height, width = weight.shape[1:]
            weight = box_weights(boxes, height, width, c.box_weight, like=weight)
        parts = {
            "local": local_loss(dense, targets.dense, targets.valid, weight, workers.mean),
            "pooled": pooled_loss(pooled, targets.pooled),
            "relation": relation_loss(
                workers.gather(pooled), workers.gather(targets.pooled), c.temperature
            ),
        }
        loss = c.local * parts["local"] + c.pooled * parts["pooled"]
        loss = loss + c.relation * parts["relation"]
        return loss, {name: value.detach() for name, value in parts.items()}

    def forward(
        self, memory: Memory, targets: TeacherTargets, boxes: Sequence[Tensor] | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss times its weight, to be added to the task's; call `after_backward` next.

        Arguments and errors are those of `terms`.
        """
        loss, parts = self.terms(memory, targets, boxes)
        self._pull = self._total = None
        if memory.visual.requires_grad:
            (self._pull,) = torch.autograd.grad(loss, memory.visual, retain_graph=True)
            memory.visual.register_hook(self._keep_total)
        return self.weight * loss, parts

    def _keep_total(self, gradient: Tensor) -> None:
        self._total = gradient.detach()

    @torch.no_grad()
    def after_backward(self, mean: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Measure the share distillation had of this step's gradient, and move the weight.

        Args:
            mean: averages a tensor over all workers. Their gradients are of different frames,
                so squared norms add up, and their ratio is that of the whole batch.

        Returns:
            `distill_share` of this step and `distill_weight` of the next.
        """
        if self._pull is None or self._total is None:
            return {}
        pull, total = self._pull.float(), self._total.float()
        self._pull = self._total = None
        task = total - self.weight * pull
        now = mean(torch.stack([task.square().sum(), pull.square().sum()]))
        pulled, pushed = self.weight * now[1].sqrt(), now[0].sqrt()
        share = pulled / (pulled + pushed).clamp(min=1e-20)
        keep = _FORGET * (self.norms.sum() > 0)
        self.norms.copy_(keep * self.norms + (1 - keep) * now)
        ratio = (self.norms[0] / self.norms[1].clamp(min=1e-20)).sqrt()
        wanted = ratio * self.config.share / (1 - self.config.share)
        self.weight.copy_(wanted.clamp(*_WEIGHT_RANGE))
        return {"distill_share": share, "distill_weight": self.weight.clone()}
