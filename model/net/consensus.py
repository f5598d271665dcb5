"""Detections that combine the decoder's queries with the dense head's positions.

A query has one box, whose errors are large; near a person many positions have a box each, and their
errors differ. So boxes become a weighted mean. And a query that no position agrees with is wrong
more often than its score says, so scores become a geometric mean. The loss compares the two apart,
because a mean would hide what each lacks.

There is no threshold on an overlap, so runtimes that round differently give nearly the same.

Shapes: N frames, S positions of the dense head, K detection queries, C classes.
"""

import torch
from torch import Tensor

from model.net.decoder import DecoderOutput
from model.net.geometry import canvas_sides, inverse_sigmoid, pairwise_iou, to_centres, to_corners
from model.net.proposals import DenseDetections

_POSITIONS = 300  # the best of a frame; with 100 crowds lose people, more change nothing


@torch.no_grad()
def consensus(
    found: DecoderOutput, dense: DenseDetections, canvas: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Logits (N, K, C) and boxes (N, K, 4), centre form in [0, 1], of queries and positions.

    Args:
        found: detections; the last layer counts.
        dense: of the same frames.
        canvas: height and width in pixels.
    """
    sides = canvas_sides(*canvas, found.boxes.device)
    corners = to_corners(found.boxes[-1].float()) * sides
    scores = dense.logits.float().sigmoid() * dense.valid[..., None]
    trust = scores.amax(-1)
    best = trust.topk(min(_POSITIONS, trust.shape[1]), dim=1).indices
    others = dense.boxes.gather(1, best[..., None].expand(-1, -1, 4))
    overlap = pairwise_iou(corners, others)
    # Overlap to the power of 8: a box that overlaps by half counts a 256th.
    near = overlap.square().square().square()
    weight = near * trust.gather(1, best)[:, None]
    boxes = (corners + weight @ others) / (1 + weight.sum(-1, keepdim=True))
    scores = scores.gather(1, best[..., None].expand(-1, -1, scores.shape[-1]))
    support = (overlap[..., None] * scores[:, None]).amax(2)
    both = (found.logits[-1].float().sigmoid() * support).sqrt()
    return inverse_sigmoid(both), to_centres(boxes / sides)
