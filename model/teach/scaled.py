"""A teacher that sees the clean picture larger than the student does.

Aligned with the student's map it knows of small people what the student must guess (Qi et al.,
"Multi-Scale Aligned Distillation for Low-Resolution Detection", CVPR 2021).
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from model.net.config import STRIDES
from model.net.padding import valid_positions
from model.teach.teacher import STRIDE, Teacher, TeacherFeatures


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Two sides or coordinates in pixels of the student's canvas, on the teacher's."""
    return round(size[0] * scale), round(size[1] * scale)


def scaled_id(identity: str, scale: float) -> str:
    """Id of a teacher that sees pictures at a scale."""
    return identity if scale == 1 else f"{identity}@{scale:g}"


class ScaledTeacher:
    """Brings the features of a larger canvas to the positions of the student's.

    Args:
        teacher: sees the larger canvas.
        scale: sides of its canvas, as a multiple of the student's; 1 to 2.
    """

    def __init__(self, teacher: Teacher, scale: float) -> None:
        self.teacher, self.scale = teacher, scale
        self.info = replace(teacher.info, id=scaled_id(teacher.info.id, scale))

    @torch.no_grad()
    def __call__(self, images: Tensor, valid: Tensor) -> TeacherFeatures:
        """Compute features on the student's canvas.

        Args:
            images: (N, 3, sH, sW) RGB in 0..255, the clean pictures at the scale s.
            valid: (N, 2) height and width in pixels of the picture on the student's canvas.
        """
        sides = images.shape[2:]
        height, width = (round(side / self.scale) for side in sides)
        missing = [-side % STRIDES[-1] for side in sides]
        seen = torch.minimum((valid * self.scale).round().long(), valid.new_tensor(sides))
        found = self.teacher(F.pad(images, (0, missing[1], 0, missing[0])), seen)
        grid = (height // STRIDE, width // STRIDE)
        # Two samples a side of a position, so that at scales up to 2 nothing is skipped.
        area = [0.0, 0.0, grid[1] * self.scale, grid[0] * self.scale]
        boxes = found.dense.new_tensor([area]).expand(len(images), -1)
        frames = torch.arange(len(images), device=boxes.device, dtype=boxes.dtype)[:, None]
        dense = roi_align(
            found.dense, torch.cat([frames, boxes], 1), grid, sampling_ratio=2, aligned=True
        )
        return TeacherFeatures(dense, found.pooled, valid_positions(valid, grid, STRIDE))
