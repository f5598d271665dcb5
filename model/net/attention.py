"""Attention over feature maps and between queries, in plain PyTorch.

Shapes: B frames, Q queries, D width, H heads, L maps, P points a head and map.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.net.geometry import pairwise_iou, to_corners


def sample_maps(maps: Sequence[Tensor], locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted bilinear samples of several maps: the core of deformable attention.

    Zhu et al., "Deformable DETR", ICLR 2021, eq. 3, without the value projection: the maps
    arrive projected, and one 1x1 convolution a layer over every position is saved.

    Args:
        maps: L tensors (B, D, h_l, w_l); channels are split evenly between the heads.
        locations: (B, Q, H, L, P, 2) x, y with [0, 1] spanning each map; outside reads zero.
        weights: (B, Q, H, L, P).

    Returns:
        (B, Q, D).
    """
    b, q, heads, levels, points, _ = locations.shape
    grid = (2 * locations - 1).permute(3, 0, 2, 1, 4, 5).reshape(levels, b * heads, q, points, 2)
    samples = [
        F.grid_sample(
            features.reshape(b * heads, -1, *features.shape[2:]),
            grid[level],
            mode="bilinear",
            padding_mode="zeros",
            align_corners=False,
        )
        for level, features in enumerate(maps)
    ]
    # (B * H, D / H, Q, L * P) times (B * H, 1, Q, L * P), summed over samples.
    stacked = torch.cat(samples, dim=-1)
    weight = weights.permute(0, 2, 1, 3, 4).reshape(b * heads, 1, q, levels * points)
    return (stacked * weight).sum(-1).view(b, -1, q).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class Rows:
    """A map whose channels come last, as `sample_rows` reads it.

    Attributes:
        table: (B, h, w, D).
    """

    table: Tensor

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """B, D, h, w, as of a map whose channels come first."""
        b, h, w, d = self.table.shape
        return b, d, h, w


Maps = Sequence[Tensor] | Sequence[Rows]
"""Maps (B, D, h_l, w_l), or the same with their channels last."""


def sample_rows(maps: Sequence[Rows], locations: Tensor, weights: Tensor) -> Tensor:
    """`sample_maps` on channels-last maps: weighted sums of rows of a table, four to a sample.

    OpenVINO samples maps whose channels come first number by number. Here the channels of a head
    at a position are one line of the cache, and maps are not transposed.

    Args:
        maps: L of them; channels are split evenly between the heads.
        locations, weights: as of `sample_maps`.

    Returns:
        (B, Q, D).
    """
    b, q, heads, levels, points, _ = locations.shape
    device, number = locations.device, locations.dtype
    # Each point four times, once for each position around it: (2, L, B * Q * H, 4 * P).
    points_xy = locations.permute(5, 3, 0, 1, 2, 4).reshape(2, levels, -1, points)
    share = weights.permute(3, 0, 1, 2, 4).reshape(levels, -1, points)
    points_xy, share = points_xy.repeat(1, 1, 1, 4), share.repeat(1, 1, 4)
    sizes = [(m.shape[3], m.shape[2]) for m in maps]
    sides = torch.tensor(sizes, dtype=number, device=device).T[:, :, None, None]
    corner = torch.arange(4 * points, device=device) // points
    step = torch.stack([corner % 2, corner // 2]).to(number)[:, None, None]
    place = points_xy * sides - 0.5
    corners = place.floor() + step
    near = (1 - (place - corners).abs()) * ((corners >= 0) & (corners < sides)).to(number)
    share = share * near[0] * near[1]
    column, row = corners.clamp(min=0).minimum(sides - 1)
    # Rows of a table are the channels of one head at one position.
    frame = torch.arange(b, device=device).repeat_interleave(q * heads)[:, None]
    head = torch.arange(heads, device=device).repeat(b * q)[:, None]
    area = sides[0] * sides[1]
    index = (((frame * area + row * sides[0] + column) * heads) + head).to(torch.int32)
    read = [
        F.embedding_bag(at, m.table.reshape(-1, m.shape[1] // heads), mode="sum",
                        per_sample_weights=of)
        for at, m, of in zip(index, maps, share, strict=True)
    ]  # fmt: skip
    return sum(read[1:], read[0]).view(b, q, -1)


class DeformableAttention(nn.Module):
    """Each query reads a few learned positions of each map, relative to its box."""

    def __init__(self, dim: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(dim, heads * levels * points * 2)
        self.weights = nn.Linear(dim, heads * levels * points)
        self.out = nn.Linear(dim, dim)
        # At first each head samples in its own direction, and each point lies a step further out.
        angle = torch.arange(heads) * (2 * torch.pi / heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        step = torch.arange(1, points + 1) / points
        start = direction[:, None, None] * step[None, None, :, None]
        nn.init.zeros_(self.offsets.weight)
        self.offsets.bias.data = start.expand(heads, levels, points, 2).flatten().clone()
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)

    def forward(self, query: Tensor, reference: Tensor, maps: Maps) -> Tensor:
        """Return what each query read, (B, Q, D).

        Args:
            query: (B, Q, D).
            reference: (B, Q, 4) centre x, y, width, height in [0, 1] of the canvas, float32.
            maps: L of them.
        """
        b, q, _ = query.shape
        shape = (b, q, self.heads, self.levels, self.points)
        offsets = self.offsets(query).view(*shape, 2).float()
        centre = reference[:, :, None, None, None, :2]
        size = reference[:, :, None, None, None, 2:]
        # An offset of 1 is the edge of the box.
        locations = centre + offsets * size * 0.5
        weights = self.weights(query).view(*shape[:3], -1).softmax(-1).view(shape)
        if isinstance(maps[0], Rows):
            return self.out(sample_rows(cast("Sequence[Rows]", maps), locations, weights))
        maps = cast("Sequence[Tensor]", maps)
        return self.out(sample_maps(maps, locations.to(maps[0].dtype), weights))


@dataclass(frozen=True, slots=True)
class QuerySet:
    """Queries as attention between queries takes them.

    Attributes:
        content, position: (B, Q, D). Query and key are made of their sum, the value of content.
        boxes: (B, Q, 4) centre form in [0, 1], detached.
        scores: (B, Q) in [0, 1], detached.
        is_track: (B, Q) bool, True for track queries.
        live: (B, Q) bool, False for empty slots, which are masked.
    """

    content: Tensor
    position: Tensor
    boxes: Tensor
    scores: Tensor
    is_track: Tensor
    live: Tensor

    def joined(self, other: "QuerySet") -> "QuerySet":
        """Both sets as one, this one first."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return QuerySet(*(torch.cat([own, added.to(own.dtype)], 1) for own, added in pairs))


class RelationAttention(nn.Module):
    """Attention between queries with a bias from the geometry and scores of each pair.

    It replaces NMS: the bias lets a query find a better one on the same box. The position bias
    follows Hou et al., "Relation DETR", ECCV 2024; the overlap, the score difference and the kind
    of query are ours.
    """

    _FEATURES = 8  # seven of `pair_features`, and the kind of query

    def __init__(self, dim: int, heads: int, hidden: int = 16) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(dim, dim) for _ in range(3))
        self.out = nn.Linear(dim, dim)
        self.relation = nn.Sequential(
            nn.Linear(self._FEATURES, hidden), nn.ReLU(), nn.Linear(hidden, heads)
        )

    def forward(self, queries: QuerySet, keys: QuerySet) -> Tensor:
        """Return what each of the queries reads from the keys, (B, Q, D)."""
        b, q, dim = queries.content.shape
        query = self._heads(self.q(queries.content + queries.position))
        key = self._heads(self.k(keys.content + keys.position))
        value = self._heads(self.v(keys.content))
        features = pair_features(queries.boxes, queries.scores, keys.boxes, keys.scores)
        kind = queries.is_track[:, :, None].float() - keys.is_track[:, None].float()
        bias = judge_pairs(self.relation, [*features, kind])
        bias = bias.to(query.dtype).masked_fill(~keys.live[:, None, None, :], -1e4)
        read = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.out(read.transpose(1, 2).reshape(b, q, dim))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


def pair_features(
    boxes: Tensor, scores: Tensor, others: Tensor, other_scores: Tensor
) -> list[Tensor]:
    """Seven features of each pair of boxes (B, Q, 4) and (B, R, 4) and their scores: (B, Q, R).

    Args:
        boxes, others: centre form in [0, 1].
        scores, other_scores: (B, Q), (B, R) in [0, 1].
    """
    x, y, *sizes = boxes[:, :, None].unbind(-1)
    other_x, other_y, *other_sizes = others[:, None].unbind(-1)
    sizes = [size.clamp(min=1e-4) for size in sizes]
    distances = [
        torch.log1p((other - own).abs() / size)
        for own, other, size in zip((x, y), (other_x, other_y), sizes, strict=True)
    ]
    # The logarithm of a ratio, from one of each box instead of one of each pair.
    ratios = [
        other.clamp(min=1e-4).log() - size.log()
        for size, other in zip(sizes, other_sizes, strict=True)
    ]
    overlap = pairwise_iou(to_corners(boxes), to_corners(others))
    difference = other_scores[:, None, :] - scores[:, :, None]
    return [*distances, *ratios, overlap, difference, overlap * difference.sign()]


def judge_pairs(judge: nn.Sequential, features: Sequence[Tensor]) -> Tensor:
    """Apply linear layers and activations to features of pairs.

    The same as joining the features on a last axis, but they stay apart, as attention takes its
    bias. With a last axis of eight numbers copies take longer than the layers.

    Args:
        judge: linear layers and functions of single numbers.
        features: F tensors (B, Q, R), as many as the first layer takes.

    Returns:
        (B, F', Q, R).
    """
    x = torch.stack(list(features), 1)
    b, _, q, r = x.shape
    x = x.flatten(2)
    for layer in judge:
        x = layer.weight @ x + layer.bias[:, None] if isinstance(layer, nn.Linear) else layer(x)
    return x.view(b, -1, q, r)


def sine_embedding(x: Tensor, dim: int, temperature: float = 20.0) -> Tensor:
    """Sine and cosine embedding of coordinates in [0, 1].

    Args:
        x: (..., n).
        dim: width of each coordinate's embedding, even.

    Returns:
        (..., n * dim).
    """
    exponent = torch.arange(dim // 2, device=x.device, dtype=torch.float32) / (dim // 2)
    angle = x[..., None].float() * (2 * torch.pi) * temperature**exponent
    return torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(-2)
