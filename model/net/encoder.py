"""Hybrid encoder: self-attention on the coarsest map, then a top-down and a bottom-up pyramid.

After Zhao et al., "DETRs beat YOLOs on real-time object detection" (RT-DETR), CVPR 2024, with
depthwise-separable blocks. Shapes: N frames, D width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.net.attention import sine_embedding


class SeparableBlock(nn.Module):
    """Depthwise then pointwise convolution, with a residual where shapes allow it.

    Args:
        dim: width. stride: of the depthwise convolution. kernel: its side.
        levels: kinds of map that share the convolutions. Each has normalisations of its own,
            because statistics differ from level to level (RTMDet, 2022).
    """

    def __init__(self, dim: int, stride: int = 1, kernel: int = 5, levels: int = 1) -> None:
        super().__init__()
        self.residual = stride == 1
        self.depth = nn.Conv2d(dim, dim, kernel, stride, kernel // 2, groups=dim, bias=False)
        self.depth_norm = nn.ModuleList(nn.BatchNorm2d(dim) for _ in range(levels))
        self.point = nn.Conv2d(dim, dim, 1, bias=False)
        self.point_norm = nn.ModuleList(nn.BatchNorm2d(dim) for _ in range(levels))

    def forward(self, x: Tensor, level: int = 0) -> Tensor:
        """Map (N, D, h, w) of a level to (N, D, h / stride, w / stride)."""
        y = F.silu(self.depth_norm[level](self.depth(x)))
        y = F.silu(self.point_norm[level](self.point(y)))
        return x + y if self.residual else y


class EncoderLayer(nn.Module):
    """Pre-norm self-attention over the positions of one map, padding masked."""

    def __init__(self, dim: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qk, self.v, self.out = (
            nn.Linear(dim, 2 * dim),
            nn.Linear(dim, dim),
            nn.Linear(dim, dim),
        )
        self.ffn = nn.Sequential(
            nn.Linear(dim, feedforward), nn.GELU(), nn.Linear(feedforward, dim)
        )

    def forward(self, x: Tensor, position: Tensor, valid: Tensor) -> Tensor:
        """Map tokens x (N, S, D); position (S, D); valid (N, S) bool."""
        n, s, d = x.shape
        y = self.norm1(x)
        # Not one permutation for both, which OpenVINO 2026.4 computes wrongly where positions are
        # as many as heads.
        query, key, value = (
            part.view(n, s, self.heads, -1).transpose(1, 2)
            for part in (*self.qk(y + position).chunk(2, -1), self.v(y))
        )
        read = F.scaled_dot_product_attention(query, key, value, attn_mask=valid[:, None, None])
        x = x + self.out(read.transpose(1, 2).reshape(n, s, d))
        return x + self.ffn(self.norm2(x))


class Encoder(nn.Module):
    """Turns backbone maps at strides 8, 16, 32 into visual maps of one width."""

    def __init__(
        self, channels: Sequence[int], dim: int, heads: int, layers: int, feedforward: int
    ) -> None:
        super().__init__()
        self.dim = dim
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, dim, 1, bias=False), nn.BatchNorm2d(dim)) for c in channels
        )
        self.layers = nn.ModuleList(EncoderLayer(dim, heads, feedforward) for _ in range(layers))
        self.lateral = nn.ModuleList(nn.Conv2d(dim, dim, 1) for _ in channels[1:])
        self.up = nn.ModuleList(SeparableBlock(dim) for _ in channels[1:])
        self.down = nn.ModuleList(SeparableBlock(dim, stride=2, kernel=3) for _ in channels[1:])
        self.merge = nn.ModuleList(SeparableBlock(dim) for _ in channels[1:])

    def forward(self, features: Sequence[Tensor], valid: Sequence[Tensor]) -> list[Tensor]:
        """Return visual maps.

        Args:
            features: maps (N, C_l, h_l, w_l), finest first.
            valid: masks (N, h_l, w_l) bool of the same maps.

        Returns:
            maps (N, D, h_l, w_l), finest first.
        """
        maps = [project(f) for project, f in zip(self.project, features, strict=True)]
        maps[-1] = self._attend(maps[-1], valid[-1])
        for i in range(len(maps) - 1, 0, -1):
            coarse = F.interpolate(self.lateral[i - 1](maps[i]), scale_factor=2.0, mode="nearest")
            maps[i - 1] = self.up[i - 1](maps[i - 1] + coarse)
        for i in range(1, len(maps)):
            maps[i] = self.merge[i - 1](maps[i] + self.down[i - 1](maps[i - 1]))
        return maps

    def _attend(self, x: Tensor, valid: Tensor) -> Tensor:
        n, d, h, w = x.shape
        rows = torch.arange(h, device=x.device)[:, None].expand(h, w) / 32
        columns = torch.arange(w, device=x.device)[None].expand(h, w) / 32
        position = sine_embedding(torch.stack([rows, columns], -1), d // 2).view(h * w, d)
        tokens = x.flatten(2).transpose(1, 2)
        for layer in self.layers:
            tokens = layer(tokens, position.to(x.dtype), valid.flatten(1))
        return tokens.transpose(1, 2).reshape(n, d, h, w)
