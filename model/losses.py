"""Set losses of one frame. Sums, not means: the clip's total is divided once by its objects.

Shapes: N frames, S positions, Q queries, G objects, C classes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.geometry import coverage, generalized_iou, to_corners


def ignored(boxes: Tensor, ignore: Tensor) -> Tensor:
    """Mark boxes (Q, 4) that lie mostly inside a box to be ignored (G, 4); both corners."""
    if len(ignore) == 0:
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    return (coverage(boxes, ignore) > 0.5).any(1)


def query_loss(
    logits: Tensor,
    boxes: Tensor,
    target: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    counted: Tensor,
) -> dict[str, Tensor]:
    """Class, L1 and GIoU loss of one frame's queries at one layer, summed.

    Args:
        logits: (Q, C). boxes: (Q, 4) centre form in [0, 1].
        target: (Q,) object index, -1 for background.
        gt_boxes: (G, 4) centre form in [0, 1]. gt_labels: (G,).
        counted: (Q,) bool; background queries outside it cost nothing (empty slots, ignored).
    """
    positive = target >= 0
    classes = torch.zeros_like(logits)
    classes[positive, gt_labels[target[positive]]] = 1.0
    # Plain cross-entropy: proposals have few easy negatives left, and a focal loss would spare the
    # very ones that matter, duplicates with middling scores. It also keeps scores calibrated,
    # and births and misses are decided by thresholds on them.
    error = F.binary_cross_entropy_with_logits(logits, classes, reduction="none")
    weight = (positive | counted)[:, None]
    found, wanted = boxes[positive], gt_boxes[target[positive]]
    return {
        "class": (error * weight).sum(),
        "l1": (found - wanted).abs().sum(),
        "giou": (1 - generalized_iou(to_corners(found), to_corners(wanted))).sum(),
    }


def dense_loss(
    logits: Tensor,
    boxes: Tensor,
    index: Tensor,
    quality: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    counted: Tensor,
) -> dict[str, Tensor]:
    """Class and GIoU loss of one frame's dense head, summed.

    The class target of a position is its alignment quality (TOOD), so scores rank by overlap.

    Args:
        logits: (S, C). boxes: (S, 4) corners in pixels.
        index, quality: (S,) from `matching.assign_dense`.
        gt_boxes: (G, 4) corners in pixels. gt_labels: (G,).
        counted: (S,) bool, False on padding and inside ignored boxes.
    """
    positive = index >= 0
    classes = torch.zeros_like(logits)
    classes[positive, gt_labels[index[positive]]] = quality[positive]
    error = F.binary_cross_entropy_with_logits(logits, classes, reduction="none")
    # Easy background is most of a frame: it counts by how wrong it is (varifocal).
    weight = torch.where(positive[:, None], 1.0, logits.detach().sigmoid().square() * 0.75)
    overlap = generalized_iou(boxes[positive], gt_boxes[index[positive]])
    return {
        "class": (error * weight * (positive | counted)[:, None]).sum(),
        "giou": ((1 - overlap) * quality[positive]).sum(),
        "mass": quality.sum(),
    }


def quality_loss(quality: Tensor, severity: Tensor) -> Tensor:
    """Frame quality against the known severity of what we did to the frame.

    Args:
        quality: (N,) in [0, 1].
        severity: (N,) in 0..5, 0 for a frame left as it came; negative where unknown.

    Returns:
        Squared error to `1 - severity / 6` plus a margin on every pair in wrong order, mean.
    """
    known = severity >= 0
    q, s = quality[known], severity[known].float()
    if len(q) == 0:
        return quality.sum() * 0
    error = (q - (1 - s / 6)).square().mean()
    gap = s[:, None] - s[None]
    worse = gap > 0
    order = F.relu(q[:, None] - q[None] + 0.1 * gap)[worse]
    return error + (order.mean() if len(order) else 0.0)
