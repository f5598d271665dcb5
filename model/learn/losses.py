"""Set losses of frames. Sums, not means: a batch's total is divided once by its objects.

Everything is masked rather than picked out, so that nothing has to wait for the device.

Shapes: L layers, N frames, S positions, Q queries, G objects a frame (padded), C classes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.net.geometry import coverage, generalized_iou, to_corners


@torch.no_grad()
def ignored(boxes: Tensor, gt_boxes: Tensor, ignore: Tensor) -> Tensor:
    """Mark boxes (..., Q, 4) that lie mostly inside a box to be ignored: (..., Q) bool.

    Args:
        boxes: (..., Q, 4) corners. gt_boxes: (..., G, 4) corners. ignore: (..., G) bool.
    """
    return ((coverage(boxes, gt_boxes) > 0.5) & ignore[..., None, :]).any(-1)


def query_loss(
    logits: Tensor,
    boxes: Tensor,
    target: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    counted: Tensor,
    box_known: Tensor,
) -> dict[str, Tensor]:
    """Class, L1 and GIoU loss of queries, summed over frames and layers.

    Args:
        logits: (L, N, Q, C). boxes: (L, N, Q, 4) centre form in [0, 1].
        target: (L, N, Q) object index, -1 for background.
        gt_boxes: (N, G, 4) centre form in [0, 1]. gt_labels: (N, G).
        counted: (L, N, Q) bool; background queries outside it cost nothing (empty slots, ignored).
        box_known: (N, G) bool; boxes of other objects are of another convention and cost nothing.
    """
    positive = target >= 0
    layers, index = len(logits), target.clamp(min=0)
    label = gt_labels.expand(layers, -1, -1).gather(2, index)
    classes = torch.zeros_like(logits).scatter_(
        3, label[..., None], positive[..., None].to(logits.dtype)
    )
    # Plain cross-entropy: proposals have few easy negatives left, and a focal loss would spare the
    # very ones that matter, duplicates with middling scores. It also keeps scores calibrated,
    # and births and misses are decided by thresholds on them.
    error = F.binary_cross_entropy_with_logits(logits, classes, reduction="none")
    known = positive & box_known.expand(layers, -1, -1).gather(2, index)
    wanted = gt_boxes.expand(layers, -1, -1, -1).gather(2, index[..., None].expand(-1, -1, -1, 4))
    return {"class": (error * (positive | counted)[..., None]).sum()} | box_loss(
        boxes, wanted, known
    )


def box_loss(boxes: Tensor, wanted: Tensor, known: Tensor) -> dict[str, Tensor]:
    """L1 and GIoU loss of boxes against those wanted, both (..., 4) centre form, where known."""
    overlap = generalized_iou(to_corners(boxes), to_corners(wanted))
    return {
        "l1": ((boxes - wanted).abs().sum(-1) * known).sum(),
        "giou": ((1 - overlap) * known).sum(),
    }


def dense_loss(
    logits: Tensor,
    boxes: Tensor,
    index: Tensor,
    quality: Tensor,
    gt_boxes: Tensor,
    gt_labels: Tensor,
    counted: Tensor,
    box_known: Tensor,
) -> dict[str, Tensor]:
    """Class and GIoU loss of the dense head, summed over frames.

    The class target of a position is its alignment quality (TOOD), so scores rank by overlap.

    Args:
        logits: (N, S, C). boxes: (N, S, 4) corners in pixels.
        index, quality: (N, S) from `matching.assign_dense`.
        gt_boxes: (N, G, 4) corners in pixels. gt_labels: (N, G).
        counted: (N, S) bool, False on padding and inside ignored boxes.
        box_known: (N, G) bool; boxes of other objects are of another convention and cost nothing.
    """
    positive, chosen = index >= 0, index.clamp(min=0)
    mass = quality * positive
    classes = torch.zeros_like(logits).scatter_(
        2, gt_labels.gather(1, chosen)[..., None], mass[..., None].to(logits.dtype)
    )
    error = F.binary_cross_entropy_with_logits(logits, classes, reduction="none")
    # Easy background is most of a frame: it counts by how wrong it is (varifocal).
    weight = torch.where(positive[..., None], 1.0, logits.detach().sigmoid().square() * 0.75)
    wanted = gt_boxes.gather(1, chosen[..., None].expand(-1, -1, 4))
    overlap = generalized_iou(boxes, wanted)
    return {
        "class": (error * weight * (positive | counted)[..., None]).sum(),
        "giou": ((1 - overlap) * mass * box_known.gather(1, chosen)).sum(),
        "mass": mass.sum(),
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
    error = (quality - (1 - severity.float() / 6)).square() * known
    gap = (severity[:, None] - severity[None]).float()
    worse = (gap > 0) & known[:, None] & known[None]
    order = F.relu(quality[:, None] - quality[None] + 0.1 * gap) * worse
    return error.sum() / known.sum().clamp(min=1) + order.sum() / worse.sum().clamp(min=1)
