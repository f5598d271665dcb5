"""Decoder over track and detection queries, refining boxes layer by layer.

Shapes: B streams, Q queries (track slots first, then detections), D width, C classes, L layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.attention import DeformableAttention, RelationSelfAttention, sine_embedding
from model.geometry import inverse_sigmoid


@dataclass(frozen=True, slots=True)
class Queries:
    """Decoder input.

    Attributes:
        content: (B, Q, D).
        boxes: (B, Q, 4) centre form in [0, 1], references.
        prior: (B, Q, C) class logits known beforehand, from the dense head.
        is_track: (B, Q) bool.
        live: (B, Q) bool, False for empty slots.
        semantic_weight: (B, Q) in (0, 1).
    """

    content: Tensor
    boxes: Tensor
    prior: Tensor
    is_track: Tensor
    live: Tensor
    semantic_weight: Tensor


@dataclass(frozen=True, slots=True)
class DecoderOutput:
    """Decoder output.

    Attributes:
        logits: (L, B, Q, C).
        boxes: (L, B, Q, 4) centre form in [0, 1], float32.
        embedding: (B, Q, D) of the last layer.
    """

    logits: Tensor
    boxes: Tensor
    embedding: Tensor


class DecoderLayer(nn.Module):
    """Post-norm: queries talk, look at the memory, look at the semantics, think."""

    def __init__(self, dim: int, heads: int, points: int, levels: int, feedforward: int) -> None:
        super().__init__()
        self.talk = RelationSelfAttention(dim, heads)
        self.look = DeformableAttention(dim, heads, levels, points)
        self.understand = DeformableAttention(dim, heads, 1, points)
        self.ffn = nn.Sequential(
            nn.Linear(dim, feedforward), nn.ReLU(), nn.Linear(feedforward, dim)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))

    def forward(
        self,
        content: Tensor,
        position: Tensor,
        boxes: Tensor,
        scores: Tensor,
        queries: Queries,
        maps: Sequence[Tensor],
        semantic: Tensor,
    ) -> Tensor:
        """Return the new content (B, Q, D); see `Decoder.forward` for the arguments."""
        talk = self.talk(content, position, boxes, scores, queries.is_track, queries.live)
        content = self.norms[0](content + talk)
        asked = content + position
        meaning = self.understand(asked, boxes, [semantic])
        read = self.look(asked, boxes, maps) + queries.semantic_weight[..., None] * meaning
        content = self.norms[1](content + read)
        return self.norms[2](content + self.ffn(content))


class Decoder(nn.Module):
    """A stack of layers, each with its own class and box head."""

    def __init__(
        self,
        dim: int,
        heads: int,
        points: int,
        levels: int,
        feedforward: int,
        layers: int,
        classes: int,
        semantic_dim: int,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.layers = nn.ModuleList(
            DecoderLayer(dim, heads, points, levels, feedforward) for _ in range(layers)
        )
        self.position = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.prior = nn.Linear(classes, dim)
        self.kind = nn.Embedding(2, dim)
        self.semantic = nn.Conv2d(semantic_dim, dim, 1)
        self.scene = nn.Linear(semantic_dim, dim)
        self.classify = nn.ModuleList(_zeroed(nn.Linear(dim, classes)) for _ in range(layers))
        self.regress = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), _zeroed(nn.Linear(dim, 4)))
            for _ in range(layers)
        )

    def project_semantics(self, semantic: Tensor, scene: Tensor) -> Tensor:
        """Bring the semantic map (N, S, h, w) and the scene vector (N, S) to (N, D, h, w)."""
        return self.semantic(semantic) + self.scene(scene)[..., None, None]

    def forward(self, queries: Queries, maps: Sequence[Tensor], semantic: Tensor) -> DecoderOutput:
        """Decode one frame of each stream.

        Args:
            queries: see `Queries`.
            maps: fused memory, (B, D, h_l, w_l) each.
            semantic: (B, D, h, w) from `project_semantics`.
        """
        kind = self.kind(queries.is_track.long())
        content = queries.content + self.prior(queries.prior.to(queries.content.dtype)) + kind
        boxes, scores = queries.boxes.float(), queries.prior.detach().sigmoid().amax(-1)
        all_logits, all_boxes = [], []
        for layer, classify, regress in zip(self.layers, self.classify, self.regress, strict=True):
            position = self.position(sine_embedding(boxes, self.dim // 2).to(content.dtype))
            content = layer(content, position, boxes, scores, queries, maps, semantic)
            logits = queries.prior + classify(content).float()
            refined = (inverse_sigmoid(boxes) + regress(content).float()).sigmoid()
            all_logits.append(logits)
            all_boxes.append(refined)
            # Each layer learns from its own loss alone (Deformable DETR's iterative refinement).
            boxes, scores = refined.detach(), logits.detach().sigmoid().amax(-1)
        return DecoderOutput(torch.stack(all_logits), torch.stack(all_boxes), content)


def _zeroed(layer: nn.Linear) -> nn.Linear:
    """Start at zero: the first guess is the dense head's and the last frame's, to be amended."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
