"""Dense detection at every position of the maps; the best become detection queries.

Shapes: N frames, D width, C classes, S positions over all maps, K proposals.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.net.config import STRIDES
from model.net.encoder import SeparableBlock
from model.net.geometry import canvas_sides, to_centres

_DEPTH = 2  # blocks of a tower


@dataclass(frozen=True, slots=True)
class DenseDetections:
    """Output of the dense head at every position.

    Attributes:
        logits: (N, S, C).
        boxes: (N, S, 4) corners in canvas pixels, float32.
        centres: (S, 2) x, y of the positions in canvas pixels.
        strides: (S,) pixels.
        valid: (N, S) bool, False on padding.
    """

    logits: Tensor
    boxes: Tensor
    centres: Tensor
    strides: Tensor
    valid: Tensor

    def __getitem__(self, index: slice | Tensor) -> "DenseDetections":
        """Take frames by a slice or by an index tensor."""
        return replace(
            self, logits=self.logits[index], boxes=self.boxes[index], valid=self.valid[index]
        )


@dataclass(frozen=True, slots=True)
class Proposals:
    """Detection queries of N frames.

    Attributes:
        content: (N, K, D).
        boxes: (N, K, 4) centre form in [0, 1] of the canvas, detached.
        logits: (N, K, C) detached.
    """

    content: Tensor
    boxes: Tensor
    logits: Tensor


class DenseHead(nn.Module):
    """One-to-many detection: several positions are trained to find one object.

    Class and box have a tower each. The levels share the convolutions and have normalisations of
    their own: with one normalisation for three levels, training with batch statistics and
    inference with running averages would give different results.
    """

    def __init__(self, dim: int, classes: int, proposals: int) -> None:
        super().__init__()
        self.proposals = proposals
        levels = len(STRIDES)
        self.class_tower = nn.ModuleList(SeparableBlock(dim, levels=levels) for _ in range(_DEPTH))
        self.box_tower = nn.ModuleList(SeparableBlock(dim, levels=levels) for _ in range(_DEPTH))
        self.classify = nn.Conv2d(dim, classes, 1)
        self.regress = nn.Conv2d(dim, 4, 1)
        self.level_scale = nn.Parameter(torch.ones(levels))
        self.content = nn.Sequential(nn.Linear(dim, dim), nn.LayerNorm(dim))
        nn.init.constant_(_bias(self.classify), -4.6)  # prior of 1 % (RetinaNet)
        nn.init.constant_(_bias(self.regress), 1.0)

    def forward(
        self, maps: Sequence[Tensor], valid: Sequence[Tensor]
    ) -> tuple[DenseDetections, Proposals]:
        """Detect everywhere and pick the proposals.

        Args:
            maps: fused maps (N, D, h_l, w_l), finest first.
            valid: (N, h_l, w_l) bool.
        """
        return self.read(maps, self.towers(maps), valid)

    def towers(self, maps: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Features of class and box of each fused map, of its shape."""
        towers = []
        for level, x in enumerate(maps):
            class_map, box_map = x, x
            for block in self.class_tower:
                class_map = block(class_map, level)
            for block in self.box_tower:
                box_map = block(box_map, level)
            towers.append((class_map, box_map))
        return towers

    def read(
        self,
        maps: Sequence[Tensor],
        towers: Sequence[tuple[Tensor, Tensor]],
        valid: Sequence[Tensor],
    ) -> tuple[DenseDetections, Proposals]:
        """Detect everywhere and pick the proposals, from `towers` of the maps."""
        logits, boxes, centres, strides, peaks, features = [], [], [], [], [], []
        levels = zip(maps, towers, valid, STRIDES, strict=True)
        for level, (x, (class_map, box_map), mask, stride) in enumerate(levels):
            # By position: where channels of towers come last already, nothing is transposed.
            class_rows, box_rows = _by_position(class_map), _by_position(box_map)
            logit = _at_positions(self.classify, class_rows).float()
            distance = _at_positions(self.regress, box_rows).float() * self.level_scale[level]
            distance = F.softplus(distance) * stride
            centre = _centres(x.shape[2], x.shape[3], stride, x.device)
            boxes.append(torch.cat([centre - distance[..., :2], centre + distance[..., 2:]], -1))
            logits.append(logit)
            centres.append(centre)
            strides.append(torch.full((len(centre),), stride, device=x.device))
            # Neighbouring positions find the same object. Only local maxima are proposed, or a
            # few people of a crowd would use up the queries.
            best = logit.amax(-1).view(-1, 1, *x.shape[2:]).masked_fill(~mask[:, None], -1e4)
            is_peak = best >= F.max_pool2d(best, 3, stride=1, padding=1)
            peaks.append(best.masked_fill(~is_peak, -1e4).flatten(1))
            features.append(_by_position(x) + (class_rows + box_rows) / 2)
        dense = DenseDetections(
            torch.cat(logits, 1),
            torch.cat(boxes, 1),
            torch.cat(centres),
            torch.cat(strides),
            torch.cat([mask.flatten(1) for mask in valid], 1),
        )
        height, width = (side * STRIDES[0] for side in maps[0].shape[2:])
        rank = torch.cat(peaks, 1).detach()
        # Where there are fewer peaks than queries, other positions follow in their order. `topk`
        # takes equals in no order that another runtime could keep.
        others = -1e4 - torch.arange(rank.shape[1], device=rank.device)
        best = torch.where(rank > -1e4, rank, others).topk(self.proposals, dim=1).indices
        return dense, self._gather(dense, torch.cat(features, 1), best, height, width)

    def _gather(
        self, dense: DenseDetections, features: Tensor, index: Tensor, height: int, width: int
    ) -> Proposals:
        boxes = _pick(dense.boxes.detach(), index) / canvas_sides(height, width, index.device)
        # Reference boxes live in (0, 1): the decoder refines them in inverse-sigmoid space.
        boxes = to_centres(boxes.clamp(0, 1)).clamp(1e-4, 1 - 1e-4)
        content = self.content(_pick(features, index))
        return Proposals(content, boxes, _pick(dense.logits.detach(), index))


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _by_position(x: Tensor) -> Tensor:
    """A map (N, D, h, w) as (N, h * w, D)."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _at_positions(layer: nn.Conv2d, rows: Tensor) -> Tensor:
    """Apply a 1x1 convolution to positions (N, S, D)."""
    return F.linear(rows, layer.weight.flatten(1), layer.bias)


def _pick(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x (N, S, d) at index (N, K): (N, K, d)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def _centres(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """Centres x, y of a map's positions in canvas pixels: (h * w, 2)."""
    y, x = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    return (torch.stack([x, y], -1).view(-1, 2) + 0.5) * stride
