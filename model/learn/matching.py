"""Assignment of objects to positions and queries: dense (one to many) and one to one.

Shapes: L layers, N frames, S positions, Q queries, G objects a frame (padded), C classes.
"""

import numpy as np
import torch
from torch import Tensor

from model.net.geometry import generalized_iou, pairwise_iou, to_corners

try:
    from scipy.optimize import linear_sum_assignment
except ImportError:  # without SciPy `assign_one_to_one` does the same, slower
    linear_sum_assignment = None


_CENTRAL = 2.5
"""Strides from the middle of an object within which a position may answer for it (YOLOX)."""
_NEAREST = 0.75
"""Strides from it within which one may answer that lies outside a tiny object."""


@torch.no_grad()
def assign_dense(
    scores: Tensor,
    boxes: Tensor,
    centres: Tensor,
    strides: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    real: Tensor,
    *,
    top: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
) -> tuple[Tensor, Tensor]:
    """Task-aligned one-to-many assignment (Feng et al., "TOOD", ICCV 2021).

    Each object takes the `top` positions near its middle with the greatest score^alpha * IoU^beta.
    A position that two objects take goes to the one it overlaps more. Only positions near the
    middle may answer (YOLOX): which of all positions inside an object has the best box is chance
    while boxes are rough, and scores cannot learn it.

    Args:
        scores: (N, S, C) probabilities.
        boxes: (N, S, 4) predicted corners in pixels.
        centres: (S, 2) pixels. strides: (S,) pixels.
        gt_boxes: (N, G, 4) corners in pixels. gt_labels: (N, G) int64.
        real: (N, G) bool, False for padding and ignored boxes.

    Returns:
        index (N, S) of each position's object, -1 for background; quality (N, S) in [0, 1], the
        target score of its class.
    """
    overlap = pairwise_iou(gt_boxes, boxes)
    labels = gt_labels[..., None].expand(-1, -1, scores.shape[1])
    align = scores.transpose(1, 2).gather(1, labels).pow(alpha) * overlap.pow(beta)
    low, high = gt_boxes[:, :, None, :2], gt_boxes[:, :, None, 2:]
    inside = ((centres > low) & (centres < high)).all(-1)
    middle = (gt_boxes[..., :2] + gt_boxes[..., 2:]) / 2
    away = (centres - middle[:, :, None]).abs().amax(-1) / strides
    # An object smaller than a cell may hold no centre; it takes the nearest cells.
    candidate = ((inside & (away < _CENTRAL)) | (away < _NEAREST)) & real[..., None]
    align = (align + 1e-9) * candidate
    best = align.topk(min(top, align.shape[2]), dim=2).indices
    chosen = torch.zeros_like(candidate).scatter_(2, best, True) & candidate
    rival = torch.where(chosen, overlap, -1.0)
    index = torch.where(chosen.any(1), rival.argmax(1), -1)
    objects = torch.arange(gt_boxes.shape[1], device=index.device)
    chosen &= index[:, None] == objects[:, None]
    align, overlap = align * chosen, overlap * chosen
    peak = align.amax(2, keepdim=True).clamp(min=1e-9)
    quality = (align / peak * overlap.amax(2, keepdim=True)).amax(1)
    return index, quality


def matching_cost(logits: Tensor, boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor) -> Tensor:
    """Cost (..., Q, G) of giving each query each object: focal 2, L1 5, GIoU 2 (Deformable DETR).

    Args:
        logits: (..., Q, C). boxes: (..., Q, 4) centre form in [0, 1].
        gt_boxes: (..., G, 4) centre form in [0, 1]. gt_labels: (..., G).
    """
    labels = gt_labels[..., None, :].expand(*logits.shape[:-1], gt_labels.shape[-1])
    score = logits.sigmoid().gather(-1, labels)
    positive = 0.25 * (1 - score).square() * -torch.log(score + 1e-8)
    negative = 0.75 * score.square() * -torch.log(1 - score + 1e-8)
    distance = (boxes[..., :, None, :] - gt_boxes[..., None, :, :]).abs().sum(-1)
    overlap = generalized_iou(
        to_corners(boxes)[..., :, None, :], to_corners(gt_boxes)[..., None, :, :]
    )
    return 2 * (positive - negative) + 5 * distance - 2 * overlap


@torch.no_grad()
def match(
    logits: Tensor, boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor, real: Tensor
) -> Tensor:
    """Object index of each query (L, N, Q) int64, -1 for background; see `matching_cost`.

    All costs go to the host in one transfer, where each frame of each layer is solved.

    Args:
        logits: (L, N, Q, C). boxes: (L, N, Q, 4) centre form in [0, 1].
        gt_boxes: (N, G, 4) centre form in [0, 1]. gt_labels: (N, G).
        real: (N, G) bool, False for padding and ignored boxes.
    """
    layers = len(logits)
    labels = gt_labels.expand(layers, -1, -1)
    cost = matching_cost(logits.float(), boxes, gt_boxes.expand(layers, -1, -1, -1), labels)
    # The mask is sent in the same transfer, as a last row.
    sent = torch.cat([cost, real.to(cost.dtype).expand(layers, -1, -1)[:, :, None]], 2)
    received = sent.cpu().numpy()
    index = np.full((*received.shape[:2], logits.shape[2]), -1, np.int64)
    for layer, frames in enumerate(received):
        for n, frame in enumerate(frames):
            objects = np.flatnonzero(frame[-1])
            if len(objects):
                queries, matched = solve(frame[:-1, objects])
                index[layer, n, queries] = objects[matched]
    return torch.from_numpy(index).to(logits.device)


def solve(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cheapest one-to-one assignment of (Q, G) costs: query and object indices of the pairs."""
    # A network that has diverged gives NaN here. The training stops at its loss right after.
    cost = np.nan_to_num(cost.astype(np.float64))
    if linear_sum_assignment is None:
        return assign_one_to_one(cost)
    queries, objects = linear_sum_assignment(cost)
    return queries, objects


def assign_one_to_one(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cheapest one-to-one assignment, by shortest augmenting paths, without SciPy.

    Jonker & Volgenant, Computing 38, 1987; O(G^2 Q), vectorised over queries. A test holds it
    equal to SciPy's.

    Args:
        cost: (Q, G) finite.

    Returns:
        query and object indices of min(Q, G) pairs, by object where G <= Q, else by query.
    """
    if cost.shape[0] < cost.shape[1]:
        objects, queries = assign_one_to_one(cost.T)
        return queries, objects
    cost = np.asarray(cost, np.float64).T
    rows, columns = cost.shape
    # Column 0 is a virtual start; owner[j] is the row that holds column j, 0 for none.
    u, v = np.zeros(rows + 1), np.zeros(columns + 1)
    owner = np.zeros(columns + 1, np.int64)
    for row in range(1, rows + 1):
        owner[0], column = row, 0
        shortest = np.full(columns + 1, np.inf)
        before = np.zeros(columns + 1, np.int64)
        done = np.zeros(columns + 1, bool)
        while True:
            done[column] = True
            reduced = cost[owner[column] - 1] - u[owner[column]] - v[1:]
            better = ~done[1:] & (reduced < shortest[1:])
            shortest[1:][better] = reduced[better]
            before[1:][better] = column
            following = int(np.where(done[1:], np.inf, shortest[1:]).argmin()) + 1
            delta = shortest[following]
            u[owner[done]] += delta
            v[done] -= delta
            shortest[~done] -= delta
            column = following
            if owner[column] == 0:
                break
        while column:
            owner[column] = owner[before[column]]
            column = int(before[column])
    columns_used = np.flatnonzero(owner[1:])
    objects = owner[1:][columns_used] - 1
    order = objects.argsort()
    return columns_used[order], objects[order]
