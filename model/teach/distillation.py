"""Dual-constraint semantic distillation (DCSD) of a teacher's features into the student.

The student sees the degraded frame, the teacher the clean one. The local constraint compares
features position by position. The global one compares pooled features and their similarities
between frames. The terms are in `distillation_terms`. The projectors to the teacher's width are
here, and on disk in a file beside the weights, so the shipped student has none.

Shapes: N frames, S semantic width, C and Cp widths of the teacher's dense and pooled features,
(h, w) the stride-16 map.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from model.communicator import Communicator
from model.teach.config import DistillationConfig
from model.teach.distillation_terms import box_weights, local_loss, pooled_loss, relation_loss
from model.teach.gradient_share import GradientShare
from model.teach.teacher import TeacherFeatures, TeacherInfo
from model.teach.teacher_statistics import TeacherStatistics
from model.track.checkpoint import CheckpointError
from model.track.frames import EncodedFrames

_KEY = "vsdmot_distiller"  # of the metadata block in a file of projectors


@dataclass(frozen=True, slots=True)
class TeacherTargets:
    """Normalised features of the teacher, of clean frames.

    Attributes:
        dense: (N, C, h, w). pooled: (N, Cp).
        valid: (N, h, w) bool, False on padding and in frames without dense features.
    """

    dense: Tensor
    pooled: Tensor
    valid: Tensor


class Semantics(Protocol):
    """Semantics of N frames by a student: map (N, S, h, w) at stride 16, and vector (N, S)."""

    @property
    def semantic_map(self) -> Tensor: ...  # noqa: D102
    @property
    def scene(self) -> Tensor: ...  # noqa: D102


class Distiller(GradientShare):
    """Projectors to the teacher's width, the three terms, and their weight against the task.

    The weight is set so that distillation has the configured share of the gradient on
    `EncodedFrames.visual`, the activation that the semantic branch starts from. This share does
    not depend on how losses are scaled. To measure it costs one more backward pass through the
    semantic branch.

    Args:
        config: settings.
        semantic_dim: the student's S.
        teacher: whose features are distilled.
        statistics: of that teacher's features; None if a state dict will be loaded.
    """

    dense_mean: Tensor
    dense_scale: Tensor
    pooled_mean: Tensor
    pooled_scale: Tensor

    def __init__(
        self,
        config: DistillationConfig,
        semantic_dim: int,
        teacher: TeacherInfo,
        statistics: TeacherStatistics | None = None,
    ) -> None:
        super().__init__(config.share)
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

    def targets(self, features: TeacherFeatures) -> TeacherTargets:
        """Normalise a teacher's features."""
        dense = (features.dense - self.dense_mean[:, None, None]) / self.dense_scale[:, None, None]
        pooled = (features.pooled - self.pooled_mean) / self.pooled_scale
        return TeacherTargets(dense, pooled, features.valid)

    def project(self, student: Semantics) -> tuple[Tensor, Tensor]:
        """The student's dense map (N, C, h, w) and vector (N, Cp) in the teacher's space."""
        # In float32: cosines of long vectors are too coarse in bfloat16.
        with torch.autocast(student.scene.device.type, enabled=False):
            dense = self.project_dense(student.semantic_map.float())
            return dense, self.project_pooled(student.scene.float())

    def terms(
        self, student: Semantics, targets: TeacherTargets, boxes: Sequence[Tensor] | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss before it is weighted against the task, and its terms for the log.

        Args:
            student: of N degraded frames.
            targets: of the same frames, clean; equally many on every worker.
            boxes: for each frame (n, 4) corners in canvas pixels, of objects; None weighs all
                positions alike.

        Raises:
            ValueError: student and teacher maps differ in size.
        """
        if targets.dense.shape[2:] != student.semantic_map.shape[2:]:
            raise ValueError(
                f"teacher {self.teacher.id} gives maps of {tuple(targets.dense.shape[2:])}, the "
                f"student of {tuple(student.semantic_map.shape[2:])}; both must see one canvas"
            )
        c, workers = self.config, Communicator()
        dense, pooled = self.project(student)
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
        self, student: EncodedFrames, targets: TeacherTargets, boxes: Sequence[Tensor] | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss times its weight, to be added to the task's; call `after_backward` next.

        Arguments and errors are those of `terms`.
        """
        loss, parts = self.terms(student, targets, boxes)
        return self.weighted(loss, student.visual), parts


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


def load_distiller(path: str | Path, config: DistillationConfig | None = None) -> Distiller:
    """Read a file that `distiller_bytes` made.

    Args:
        path: the file.
        config: settings that replace those in the file; None keeps them.

    Raises:
        CheckpointError: no such file, or not one of these.
    """
    if not Path(path).is_file():
        raise CheckpointError(
            f"{path}: no such file; vsdmot distill writes it beside the weights it makes"
        )
    try:
        with safe_open(path, framework="pt") as file:
            block = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        distiller = Distiller(
            config or DistillationConfig(**block["config"]),
            block["semantic_dim"],
            TeacherInfo.of(block["teacher"]),
        )
        distiller.load_state_dict(tensors)
    except (SafetensorError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path}: holds no projectors that this code can read ({error}); distil again"
        ) from error
    return distiller.eval()
