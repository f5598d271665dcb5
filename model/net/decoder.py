"""Decoders: queries refine their boxes and scores layer by layer.

One decoder takes the detection queries of a frame, which need no state. Another takes the track
queries, which also attend to the detections of the frame. Detections do not attend to tracks: when
they did, one confident track lowered the scores of detections in the whole picture.

Shapes: B streams or frames, Q queries, D width, C classes, L layers.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from model.net.attention import (
    DeformableAttention,
    Maps,
    QuerySet,
    RelationAttention,
    Rows,
    sine_embedding,
)
from model.net.geometry import inverse_sigmoid


@dataclass(frozen=True, slots=True)
class Queries:
    """Decoder input.

    Attributes:
        content: (B, Q, D).
        boxes: (B, Q, 4) centre form in [0, 1], references.
        prior: (B, Q, C) class logits before decoding.
        live: (B, Q) bool, False for empty slots.
        semantic_weight: (B, Q) in (0, 1).
    """

    content: Tensor
    boxes: Tensor
    prior: Tensor
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

    def __getitem__(self, index: slice | Tensor) -> "DecoderOutput":
        """Take frames by a slice or by an index tensor."""
        return DecoderOutput(self.logits[:, index], self.boxes[:, index], self.embedding[index])


class DecoderLayer(nn.Module):
    """Post-norm layer: attention to queries, maps and semantics, then a feed-forward network."""

    def __init__(self, dim: int, heads: int, points: int, levels: int, feedforward: int) -> None:
        super().__init__()
        self.talk = RelationAttention(dim, heads)
        self.look = DeformableAttention(dim, heads, levels, points)
        self.understand = DeformableAttention(dim, heads, 1, points)
        self.ffn = nn.Sequential(
            nn.Linear(dim, feedforward), nn.ReLU(), nn.Linear(feedforward, dim)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))

    def forward(
        self,
        queries: QuerySet,
        keys: QuerySet,
        semantic_weight: Tensor,
        maps: Maps,
        semantic: Tensor | Rows,
    ) -> Tensor:
        """Return the new content (B, Q, D) of the queries; see `Decoder.forward`."""
        content = self.norms[0](queries.content + self.talk(queries, keys))
        query = content + queries.position
        alone = cast("Maps", [semantic])
        meaning = self.understand(query, queries.boxes, alone)
        read = self.look(query, queries.boxes, maps) + semantic_weight[..., None] * meaning
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
    ) -> None:
        super().__init__()
        self.dim = dim
        self.layers = nn.ModuleList(
            DecoderLayer(dim, heads, points, levels, feedforward) for _ in range(layers)
        )
        self.position = nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.prior = nn.Linear(classes, dim)
        self.classify = nn.ModuleList(zeroed(nn.Linear(dim, classes)) for _ in range(layers))
        self.regress = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), zeroed(nn.Linear(dim, 4)))
            for _ in range(layers)
        )

    def forward(
        self,
        queries: Queries,
        maps: Maps,
        semantic: Tensor | Rows,
        detections: DecoderOutput | None = None,
    ) -> DecoderOutput:
        """Decode one frame of each stream.

        Args:
            queries: see `Queries`.
            maps: fused maps, (B, D, h_l, w_l) each.
            semantic: (B, D, h, w) from `SemanticProjection`.
            detections: of the same frames; track queries attend to them and to each other.
        """
        content = queries.content + self.prior(queries.prior.to(queries.content.dtype))
        boxes, scores = queries.boxes.float(), queries.prior.detach().sigmoid().amax(-1)
        # Not `full_like` with a bool, which tracing for another runtime cannot record.
        is_track = (torch.zeros_like if detections is None else torch.ones_like)(queries.live)
        found = None if detections is None else self._found(detections)
        all_logits, all_boxes = [], []
        for layer, classify, regress in zip(self.layers, self.classify, self.regress, strict=True):
            position = self._position(boxes, content)
            current = QuerySet(content, position, boxes, scores, is_track, queries.live)
            keys = current if found is None else current.joined(found)
            content = layer(current, keys, queries.semantic_weight, maps, semantic)
            logits = queries.prior + classify(content).float()
            refined = (inverse_sigmoid(boxes) + regress(content).float()).sigmoid()
            all_logits.append(logits)
            all_boxes.append(refined)
            # Each layer learns from its own loss alone (Deformable DETR's iterative refinement).
            boxes, scores = refined.detach(), logits.detach().sigmoid().amax(-1)
        return DecoderOutput(torch.stack(all_logits), torch.stack(all_boxes), content)

    def _position(self, boxes: Tensor, like: Tensor) -> Tensor:
        return self.position(sine_embedding(boxes, self.dim // 2).to(like.dtype))

    def _found(self, detections: DecoderOutput) -> QuerySet:
        boxes = detections.boxes[-1].detach()
        scores = detections.logits[-1].detach().sigmoid().amax(-1)
        live = torch.ones_like(scores, dtype=torch.bool)
        content = detections.embedding
        return QuerySet(content, self._position(boxes, content), boxes, scores, ~live, live)


def zeroed(layer: nn.Linear) -> nn.Linear:
    """Set a layer to zero, so that what it is added to stays as it is at first."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
