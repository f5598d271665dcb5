"""Padding of feature maps, where the canvas shows no picture.

Shapes: N frames, D width, h_l x w_l the map at the l-th of `STRIDES`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from model.net.config import STRIDES


def valid_positions(valid: Tensor, size: Sequence[int], stride: int) -> Tensor:
    """Mark positions of a map that see any of the picture: (N, h, w) bool.

    Args:
        valid: (N, 2) height and width in pixels of the picture on the canvas.
        size: height and width of the map.
        stride: canvas pixels a position.
    """
    height, width = size
    rows = torch.arange(height, device=valid.device) * stride < valid[:, :1]
    columns = torch.arange(width, device=valid.device) * stride < valid[:, 1:]
    return rows[:, :, None] & columns[:, None, :]


def map_masks(maps: Sequence[Tensor], valid: Tensor) -> tuple[Tensor, ...]:
    """Masks (N, h_l, w_l) of maps at `STRIDES`, False on padding."""
    return tuple(
        valid_positions(valid, x.shape[2:], stride) for x, stride in zip(maps, STRIDES, strict=True)
    )


def masked(maps: Sequence[Tensor], masks: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Maps (N, D, h_l, w_l) with zeros where masks (N, h_l, w_l) are False."""
    return tuple(m * k[:, None].to(m.dtype) for m, k in zip(maps, masks, strict=True))


def padded(maps: Sequence[Tensor], height: int, width: int) -> list[Tensor]:
    """Maps (N, D, h_l, w_l) with zeros on the right and below, up to a canvas in pixels."""
    return [
        F.pad(x, (0, width // stride - x.shape[3], 0, height // stride - x.shape[2]))
        for x, stride in zip(maps, STRIDES, strict=True)
    ]
