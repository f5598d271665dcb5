"""Boxes: conversions, overlaps, and the inverse sigmoid of their coordinates. All in float32."""

import torch
from torch import Tensor


def to_corners(boxes: Tensor) -> Tensor:
    """Convert (..., 4) centre x, centre y, width, height to x1, y1, x2, y2."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def to_centres(boxes: Tensor) -> Tensor:
    """Convert (..., 4) x1, y1, x2, y2 to centre x, centre y, width, height."""
    return torch.cat(
        [(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], dim=-1
    )


def canvas_sides(height: int, width: int, device: torch.device) -> Tensor:
    """Width, height, width, height of the canvas in pixels: (4,), what corners are scaled by.

    It is filled on the device. A copy from the host would make the host wait for a GPU, and a CUDA
    graph cannot record it.
    """
    sides = [torch.full((1,), float(side), device=device) for side in (width, height)]
    return torch.cat(sides).repeat(2)


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Return the logit of x in [0, 1], finite at both ends."""
    x = x.clamp(eps, 1 - eps)
    return torch.log(x / (1 - x))


def _area(corners: Tensor) -> Tensor:
    left, top, right, bottom = corners.unbind(-1)
    return (right - left).clamp(min=0) * (bottom - top).clamp(min=0)


def intersection(a: Tensor, b: Tensor) -> Tensor:
    """Intersection areas of broadcastable corner boxes (..., 4)."""
    # By coordinate: a last axis of two numbers cannot be vectorised.
    first, second = a.unbind(-1), b.unbind(-1)
    low_x, low_y = (torch.maximum(first[i], second[i]) for i in (0, 1))
    high_x, high_y = (torch.minimum(first[i], second[i]) for i in (2, 3))
    return (high_x - low_x).clamp(min=0) * (high_y - low_y).clamp(min=0)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of broadcastable corner boxes (..., 4); 0 where both are empty."""
    overlap = intersection(a, b)
    return overlap / (_area(a) + _area(b) - overlap).clamp(min=1e-9)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Overlaps of every a (..., n, 4) with every b (..., m, 4): (..., n, m)."""
    return iou(a[..., :, None, :], b[..., None, :, :])


def coverage(a: Tensor, b: Tensor) -> Tensor:
    """Share of each a (..., n, 4) that lies inside each b (..., m, 4): (..., n, m)."""
    a, b = a[..., :, None, :], b[..., None, :, :]
    return intersection(a, b) / _area(a).clamp(min=1e-9)


def generalized_iou(a: Tensor, b: Tensor) -> Tensor:
    """GIoU of broadcastable corner boxes (Rezatofighi et al., CVPR 2019), in [-1, 1]."""
    overlap = intersection(a, b)
    union = (_area(a) + _area(b) - overlap).clamp(min=1e-9)
    hull_low = torch.minimum(a[..., :2], b[..., :2])
    hull_high = torch.maximum(a[..., 2:], b[..., 2:])
    hull = (hull_high - hull_low).clamp(min=0).prod(dim=-1).clamp(min=1e-9)
    return overlap / union - (hull - union) / hull
