"""Set losses of frames, as sums: the caller divides the total of a batch by its objects.

Entries are masked rather than selected, because a selection waits for the device.

Shapes: L layers, N frames, S positions, Q queries, K detection queries, G objects a frame
(padded), C classes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.learn.clip_batch import FrameLabels
from model.learn.matching import assign_dense, match
from model.net.decoder import DecoderOutput
from model.net.geometry import coverage, generalized_iou, to_corners
from model.net.proposals import DenseDetections


@torch.no_grad()
def ignored(boxes: Tensor, gt_boxes: Tensor, ignore: Tensor) -> Tensor:
    """Mark boxes (..., Q, 4) that lie mostly inside a box to be ignored: (..., Q) bool.

    Args:
        boxes: (..., Q, 4) corners. gt_boxes: (..., G, 4) corners. ignore: (..., G) bool.
    """
    return ((coverage(boxes, gt_boxes) > 0.5) & ignore[..., None, :]).any(-1)


def match_detections(output: DecoderOutput, labels: FrameLabels) -> Tensor:
    """Object of each detection query at each layer, (L, N, K); -1 for none.

    Detections are matched to all objects in every frame, whether tracked or not. So detection and
    association are not in conflict (CO-MOT, MeMOTR).
    """
    return match(output.logits, output.boxes, labels.centres, labels.labels, labels.real)


def query_loss(
    output: DecoderOutput,
    target: Tensor,
    live: Tensor,
    labels: FrameLabels,
    canvas: tuple[int, int],
    box_known: Tensor,
) -> dict[str, Tensor]:
    """Class, L1 and GIoU loss of queries, summed over frames and layers.

    Args:
        output: (L, N, Q, …).
        target: (L, N, Q) object of each query at each layer, -1 for background.
        live: (N, Q) bool; False for empty slots, which cost nothing.
        labels: of the N frames. Background queries inside ignored boxes cost nothing.
        canvas: height and width in pixels.
        box_known: (N, G) bool, objects whose box is of the kind that the queries give; boxes of
            other objects cost nothing.
    """
    logits, boxes = output.logits, output.boxes
    layers, index, positive = len(logits), target.clamp(min=0), target >= 0
    height, width = canvas
    corners = to_corners(boxes.detach()) * boxes.new_tensor([width, height, width, height])
    counted = live & ~ignored(
        corners, labels.corners.expand(layers, -1, -1, -1), labels.ignore.expand(layers, -1, -1)
    )
    label = labels.labels.expand(layers, -1, -1).gather(2, index)
    classes = torch.zeros_like(logits).scatter_(
        3, label[..., None], positive[..., None].to(logits.dtype)
    )
    # Plain cross-entropy: proposals have few easy negatives left, and a focal loss would spare
    # duplicates with middling scores, which matter most. It also keeps scores calibrated, and
    # births and misses are decided by thresholds on them.
    error = F.binary_cross_entropy_with_logits(logits, classes, reduction="none")
    known = positive & box_known.expand(layers, -1, -1).gather(2, index)
    centres = labels.centres.expand(layers, -1, -1, -1)
    wanted = centres.gather(2, index[..., None].expand(-1, -1, -1, 4))
    classified = {"class": (error * (positive | counted)[..., None]).sum()}
    return classified | box_loss(boxes, wanted, known)


def whole_loss(whole: Tensor, target: Tensor, labels: FrameLabels) -> dict[str, Tensor]:
    """L1 and GIoU loss of boxes of whole people, where the object has such a box.

    Args:
        whole: (N, K, 4) centre form in [0, 1]. target: (N, K) object of each, -1 for none.
        labels: of the N frames.
    """
    index = target.clamp(min=0)
    known = (target >= 0) & labels.whole.gather(1, index)
    wanted = labels.centres.gather(1, index[..., None].expand(-1, -1, 4))
    return box_loss(whole, wanted, known)


def box_loss(boxes: Tensor, wanted: Tensor, known: Tensor) -> dict[str, Tensor]:
    """L1 and GIoU loss of boxes against those wanted, both (..., 4) centre form, where known."""
    overlap = generalized_iou(to_corners(boxes), to_corners(wanted))
    return {
        "l1": ((boxes - wanted).abs().sum(-1) * known).sum(),
        "giou": ((1 - overlap) * known).sum(),
    }


def dense_loss(dense: DenseDetections, labels: FrameLabels) -> dict[str, Tensor]:
    """Class and GIoU loss of the dense head and the mass to divide them by, summed over frames.

    The class target of a position is its alignment quality (TOOD), so scores rank by overlap.
    Background on padding and inside ignored boxes costs nothing. The head gives boxes of what is
    seen, and others teach it only that somebody is there.
    """
    logits, boxes = dense.logits, dense.boxes
    index, quality = assign_dense(
        logits.detach().sigmoid(),
        boxes.detach(),
        dense.centres,
        dense.strides,
        labels.corners,
        labels.labels,
        labels.real,
    )
    counted = dense.valid & ~ignored(boxes.detach(), labels.corners, labels.ignore)
    positive, chosen = index >= 0, index.clamp(min=0)
    mass = quality * positive
    classes = torch.zeros_like(logits).scatter_(
        2, labels.labels.gather(1, chosen)[..., None], mass[..., None].to(logits.dtype)
    )
    error = F.binary_cross_entropy_with_logits(logits, classes, reduction="none")
    # Easy background is most of a frame: it counts by how wrong it is (varifocal).
    weight = torch.where(positive[..., None], 1.0, logits.detach().sigmoid().square() * 0.75)
    wanted = labels.corners.gather(1, chosen[..., None].expand(-1, -1, 4))
    overlap = generalized_iou(boxes, wanted)
    return {
        "class": (error * weight * (positive | counted)[..., None]).sum(),
        "giou": ((1 - overlap) * mass * labels.seen.gather(1, chosen)).sum(),
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
