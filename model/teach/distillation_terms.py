"""The terms of dual-constraint semantic distillation (DCSD).

Shapes: N frames, C and Cp widths of the teacher's dense and pooled features, (h, w) the stride-16
map.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from model.teach.teacher import STRIDE
from model.track.frames import EncodedFrames


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
    """KL divergence between the rows of both matrices of similarities between frames.

    The similarity of a frame to itself is always 1 and is left out.

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
    """`weight` where a position overlaps a box, else 1: (N, height, width).

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


def confident_boxes(encoded: EncodedFrames, score: float) -> list[Tensor]:
    """The tracker's own boxes of each frame that score more than `score`, in canvas pixels."""
    dense = encoded.dense
    confident = (dense.logits.detach().sigmoid().amax(-1) > score) & dense.valid
    return [boxes[keep].detach() for boxes, keep in zip(dense.boxes, confident, strict=True)]
