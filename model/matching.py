"""Which query answers for which object: dense, one-to-one, and by identity.

Shapes: S positions, G objects, C classes, Q queries.
"""

import numpy as np
import torch
from torch import Tensor

from model.geometry import generalized_iou, pairwise_iou, to_corners


def assign_dense(
    scores: Tensor,
    boxes: Tensor,
    centres: Tensor,
    strides: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    *,
    top: int = 10,
    alpha: float = 0.5,
    beta: float = 6.0,
) -> tuple[Tensor, Tensor]:
    """Task-aligned one-to-many assignment (Feng et al., "TOOD", ICCV 2021).

    Each object takes the `top` positions inside it with the greatest score^alpha * IoU^beta; a
    position wanted twice goes to the object it overlaps more.

    Args:
        scores: (S, C) probabilities, detached.
        boxes: (S, 4) predicted corners in pixels, detached.
        centres: (S, 2) pixels. strides: (S,) pixels.
        gt_boxes: (G, 4) corners in pixels. gt_labels: (G,) int64.

    Returns:
        index (S,) of each position's object, -1 for background; quality (S,) in [0, 1], the
        target score of its class.
    """
    count = len(gt_boxes)
    if count == 0:
        none = torch.full((len(scores),), -1, dtype=torch.long, device=scores.device)
        return none, torch.zeros_like(scores[:, 0])
    overlap = pairwise_iou(gt_boxes, boxes)
    align = scores[:, gt_labels].T.pow(alpha) * overlap.pow(beta)
    low, high = gt_boxes[:, None, :2], gt_boxes[:, None, 2:]
    inside = ((centres > low) & (centres < high)).all(-1)
    # An object smaller than a cell may hold no centre: the nearest cells still answer for it.
    middle = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2
    near = (centres[None] - middle[:, None]).abs().amax(-1) < strides * 0.75
    candidate = inside | near
    align = (align + 1e-9) * candidate
    chosen = torch.zeros_like(candidate)
    best = align.topk(min(top, align.shape[1]), dim=1).indices
    chosen.scatter_(1, best, True)
    chosen &= candidate
    rival = torch.where(chosen, overlap, -1.0)
    winner = rival.argmax(0)
    index = torch.where(chosen.any(0), winner, -1)
    chosen &= index[None] == torch.arange(count, device=index.device)[:, None]
    align, overlap = align * chosen, overlap * chosen
    peak = align.amax(1, keepdim=True).clamp(min=1e-9)
    quality = (align / peak * overlap.amax(1, keepdim=True)).amax(0)
    return index, quality


def matching_cost(logits: Tensor, boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor) -> Tensor:
    """Cost (Q, G) of giving each query each object: focal 2, L1 5, GIoU 2 (Deformable DETR).

    Args:
        logits: (Q, C). boxes: (Q, 4) centre form in [0, 1].
        gt_boxes: (G, 4) centre form in [0, 1]. gt_labels: (G,).
    """
    score = logits.sigmoid()[:, gt_labels]
    positive = 0.25 * (1 - score).square() * -torch.log(score + 1e-8)
    negative = 0.75 * score.square() * -torch.log(1 - score + 1e-8)
    distance = torch.cdist(boxes, gt_boxes, p=1)
    overlap = generalized_iou(to_corners(boxes)[:, None], to_corners(gt_boxes)[None])
    return 2 * (positive - negative) + 5 * distance - 2 * overlap


def assign_one_to_one(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cheapest one-to-one assignment, by shortest augmenting paths.

    Training runs where only PyTorch is, so SciPy's solver is not used; a test holds the two
    equal. Jonker & Volgenant, Computing 38, 1987; O(G^2 Q), vectorised over queries.

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


def match(logits: Tensor, boxes: Tensor, gt_boxes: Tensor, gt_labels: Tensor) -> Tensor:
    """Object index of each query (Q,) int64, -1 for background; see `matching_cost`."""
    index = torch.full((len(logits),), -1, dtype=torch.long, device=logits.device)
    if len(gt_boxes) and len(logits):
        with torch.no_grad():
            cost = matching_cost(logits.detach(), boxes.detach(), gt_boxes, gt_labels)
        queries, objects = assign_one_to_one(cost.double().cpu().numpy())
        index[torch.from_numpy(queries).to(index.device)] = torch.from_numpy(objects).to(
            index.device
        )
    return index
