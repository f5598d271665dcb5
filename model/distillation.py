"""Dual-constraint semantic distillation (DCSD): the student learns to see what the teacher sees.

The student sees the degraded frame, the teacher the clean one. Local constraint: position by
position. Global constraint: the scene, and which scenes are like which. The projectors to the
teacher's width live here, so the shipped student has none of them.

Shapes: N frames, S semantic width, C and Cp widths of the teacher's dense and pooled features,
(h, w) the stride-16 map.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F

from model.checkpoint import CheckpointError
from model.communicator import Communicator
from model.teacher import STRIDE, TeacherFeatures, TeacherInfo
from model.tracker import Memory

STATISTICS_TOKENS = 10_000
"""Positions that suffice for the statistics of a teacher's features."""
_FORGET = 0.9  # of the gradient norms from one step to the next
_WEIGHT_RANGE = (1e-4, 1e4)
_KEY = "vsdmot_distiller"


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
class TeacherStatistics:
    """What normalises a teacher's features: `(x - mean) / scale`, channel by channel.

    Cosine distance ignores rotations and a common scale, so PHI-S would come to the same as
    centring. What is left to settle is how maps of different strength share one vector: each
    level has its own scale.

    Attributes:
        dense_mean, dense_scale: (C,). pooled_mean, pooled_scale: (Cp,).
    """

    dense_mean: Tensor
    dense_scale: Tensor
    pooled_mean: Tensor
    pooled_scale: Tensor


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


def measure_statistics(
    info: TeacherInfo,
    features: Iterable[TeacherFeatures],
    tokens: int = STATISTICS_TOKENS,
) -> TeacherStatistics:
    """Mean and scale of a teacher's features over the first `tokens` valid positions.

    Args:
        info: of the teacher.
        features: of clean frames; no more are asked for than needed.
        tokens: valid positions looked at, at least; fewer if there are no more.

    Raises:
        ValueError: there is not one frame with dense features.
    """
    positions, vectors, count = [], [], 0
    for found in features:
        positions.append(found.dense.permute(0, 2, 3, 1)[found.valid].double().cpu())
        vectors.append(found.pooled.double().cpu())
        count += len(positions[-1])
        if count >= tokens:
            break
    if count == 0:
        raise ValueError(
            f"teacher {info.id}: no dense features to take statistics of; cache a larger share"
        )
    dense, pooled = torch.cat(positions), torch.cat(vectors)
    dense_mean, pooled_mean = dense.mean(0), pooled.mean(0)
    levels = (dense - dense_mean).split(info.levels, dim=1)
    dense_scale = torch.cat([x.square().mean().sqrt().expand(x.shape[1]) for x in levels])
    spread = (pooled - pooled_mean).square().mean().sqrt()
    # One frame has no spread: it is divided by nothing smaller than this.
    return TeacherStatistics(
        dense_mean.float(),
        dense_scale.clamp(min=1e-6).float(),
        pooled_mean.float(),
        spread.clamp(min=1e-6).expand(info.pooled_dim).float(),
    )


def local_loss(
    student: Tensor,
    teacher: Tensor,
    valid: Tensor,
    weight: Tensor,
    mean: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """`1 - cos` position by position: weighted mean over each frame, then over frames.

    Args:
        student, teacher: (N, C, h, w).
        valid: (N, h, w) bool; frames without a valid position do not count.
        weight: (N, h, w), positive.
        mean: averages a tensor over all workers, whose counts of frames may differ.
    """
    mass = weight * valid
    total = mass.sum(dim=(1, 2))
    distance = 1 - F.cosine_similarity(student, teacher, dim=1)
    frames = (distance * mass).sum(dim=(1, 2)) / total.clamp(min=1e-6)
    return frames.sum() / mean((total > 0).sum().float()).clamp(min=1e-6)


def pooled_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """`1 - cos` of the frames' vectors (N, Cp), mean."""
    return (1 - F.cosine_similarity(student, teacher, dim=1)).mean()


def relation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence between the rows of both similarity matrices: what is like what.

    The similarity of a frame to itself says nothing and is left out.

    Args:
        student, teacher: (N, Cp), of the whole batch.
        temperature: divides the cosines before the softmax.

    Returns:
        mean over rows; 0 for a single frame.
    """
    if len(student) < 2:
        return student.sum() * 0
    itself = torch.eye(len(student), dtype=torch.bool, device=student.device)

    def log_rows(x: Tensor) -> Tensor:
        unit = F.normalize(x, dim=1)
        return (unit @ unit.T / temperature).masked_fill(itself, -1e4).log_softmax(1)

    ours, wanted = log_rows(student), log_rows(teacher)
    return F.kl_div(ours, wanted, reduction="batchmean", log_target=True)


def box_weights(
    boxes: Sequence[Tensor], height: int, width: int, weight: float, like: Tensor
) -> Tensor:
    """`weight` where a position sees any of a box, else 1: (N, height, width).

    Args:
        boxes: for each frame (n, 4) corners in canvas pixels.
        height, width: of the stride-16 map.
        weight: of positions inside.
        like: gives device and type.
    """
    out = like.new_ones(len(boxes), height, width)
    rows = torch.arange(height, device=like.device) * STRIDE
    columns = torch.arange(width, device=like.device) * STRIDE
    for frame, corners in zip(out, boxes, strict=True):
        x1, y1, x2, y2 = corners.to(like.device, torch.float32).unbind(1)
        down = (rows[:, None] < y2) & (rows[:, None] + STRIDE > y1)
        across = (columns[:, None] < x2) & (columns[:, None] + STRIDE > x1)
        inside = torch.einsum("yn,xn->yx", down.float(), across.float()) > 0
        frame[inside] = weight
    return out


def confident_boxes(memory: Memory, score: float) -> list[Tensor]:
    """The tracker's own boxes of each frame that score more than `score`, in canvas pixels."""
    dense = memory.dense
    sure = (dense.logits.detach().sigmoid().amax(-1) > score) & dense.valid
    return [boxes[keep].detach() for boxes, keep in zip(dense.boxes, sure, strict=True)]


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
    ) -> tuple[Tensor, dict[str, float]]:
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
        return loss, {name: float(value.detach()) for name, value in parts.items()}

    def forward(
        self, memory: Memory, targets: TeacherTargets, boxes: Sequence[Tensor] | None
    ) -> tuple[Tensor, dict[str, float]]:
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
    def after_backward(self, mean: Callable[[Tensor], Tensor]) -> dict[str, float]:
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
        share = float(pulled / (pulled + pushed).clamp(min=1e-20))
        keep = _FORGET if float(self.norms.sum()) > 0 else 0.0
        self.norms.copy_(keep * self.norms + (1 - keep) * now)
        ratio = (self.norms[0] / self.norms[1].clamp(min=1e-20)).sqrt()
        wanted = ratio * self.config.share / (1 - self.config.share)
        self.weight.copy_(wanted.clamp(*_WEIGHT_RANGE))
        return {"distill_share": share, "distill_weight": float(self.weight)}


def distiller_path(weights: str | Path) -> Path:
    """Where the projectors that belong to a weights file lie: beside it."""
    path = Path(weights)
    return path.with_name(f"{path.stem}.distiller.safetensors")


def distiller_bytes(distiller: Distiller) -> bytes:
    """Projectors, statistics and the teacher's name as one file."""
    block = {
        "config": asdict(distiller.config),
        "semantic_dim": distiller.semantic_dim,
        "teacher": asdict(distiller.teacher),
    }
    tensors = {name: t.detach().cpu().contiguous() for name, t in distiller.state_dict().items()}
    return save(tensors, metadata={_KEY: json.dumps(block, sort_keys=True)})


def load_distiller(path: str | Path) -> Distiller:
    """Read a file that `distiller_bytes` made.

    Raises:
        CheckpointError: no such file, or not one of these.
    """
    if not Path(path).is_file():
        raise CheckpointError(
            f"{path}: no such file; jobs.distill writes it beside the weights it makes"
        )
    try:
        with safe_open(path, framework="pt") as file:
            block = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        teacher = block["teacher"]
        distiller = Distiller(
            DistillationConfig(**block["config"]),
            block["semantic_dim"],
            TeacherInfo(teacher["id"], tuple(teacher["levels"]), teacher["pooled_dim"]),
        )
        distiller.load_state_dict(tensors)
    except (SafetensorError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path}: holds no projectors that this code can read ({error}); distil again"
        ) from error
    return distiller.eval()
