"""The loss of clips written frame by frame and box by box, for tests to hold the batched one to."""

import torch
from torch.nn import functional as F

from model.learn.matching import assign_one_to_one, matching_cost
from model.net.geometry import coverage, generalized_iou, iou, pairwise_iou, to_corners


def frames_of(labels):
    """Each frame's objects without padding: corners, centres, ids, labels, boxes to ignore."""
    for n in range(len(labels)):
        real, ignore = labels.real[n], labels.ignore[n]
        yield (
            labels.corners[n][real],
            labels.centres[n][real],
            labels.ids[n][real],
            labels.labels[n][real],
            labels.corners[n][ignore],
            labels.seen[n][real],
        )


def assign(scores, boxes, centres, strides, gt_boxes, gt_labels, top=10):
    """Task-aligned assignment of one frame."""
    if len(gt_boxes) == 0:
        return torch.full((len(scores),), -1), torch.zeros(len(scores))
    overlap = pairwise_iou(gt_boxes, boxes)
    align = scores[:, gt_labels].T.pow(0.5) * overlap.pow(6.0)
    inside = ((centres > gt_boxes[:, None, :2]) & (centres < gt_boxes[:, None, 2:])).all(-1)
    middle = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2
    near = (centres[None] - middle[:, None]).abs().amax(-1) < strides * 0.75
    candidate = inside | near
    align = (align + 1e-9) * candidate
    chosen = torch.zeros_like(candidate)
    chosen.scatter_(1, align.topk(min(top, align.shape[1]), dim=1).indices, True)
    chosen &= candidate
    index = torch.where(chosen.any(0), torch.where(chosen, overlap, -1.0).argmax(0), -1)
    chosen &= index[None] == torch.arange(len(gt_boxes))[:, None]
    align, overlap = align * chosen, overlap * chosen
    peak = align.amax(1, keepdim=True).clamp(min=1e-9)
    return index, (align / peak * overlap.amax(1, keepdim=True)).amax(0)


def left_alone(boxes, ignore):
    if len(ignore) == 0:
        return torch.zeros(len(boxes), dtype=torch.bool)
    return (coverage(boxes, ignore) > 0.5).any(1)


def dense_loss(dense, labels):
    """Sums of class, box and mass over the frames."""
    sums = dict.fromkeys(("class", "giou", "mass"), 0.0)
    for n, (corners, _, _, classes, ignore, known) in enumerate(frames_of(labels)):
        logits, boxes = dense.logits[n], dense.boxes[n]
        index, quality = assign(
            logits.sigmoid(), boxes, dense.centres, dense.strides, corners, classes
        )
        positive = index >= 0
        target = torch.zeros_like(logits)
        target[positive, classes[index[positive]]] = quality[positive]
        error = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        weight = torch.where(positive[:, None], 1.0, logits.sigmoid().square() * 0.75)
        counted = positive | (dense.valid[n] & ~left_alone(boxes, ignore))
        overlap = generalized_iou(boxes[positive], corners[index[positive]])
        sums["class"] += (error * weight * counted[:, None]).sum()
        sums["giou"] += ((1 - overlap) * quality[positive] * known[index[positive]]).sum()
        sums["mass"] += quality.sum()
    return sums


def matched(output, labels):
    """Object of each query at each layer as a column of the padded labels, -1 for none."""
    targets = torch.full(output.logits.shape[:3], -1)
    for n, (_, centres, _, classes, *_) in enumerate(frames_of(labels)):
        columns = torch.nonzero(labels.real[n]).squeeze(1)
        for layer in range(len(targets)):
            if len(centres):
                cost = matching_cost(
                    output.logits[layer, n], output.boxes[layer, n], centres, classes
                )
                queries, objects = assign_one_to_one(cost.numpy())
                targets[layer, n, torch.from_numpy(queries)] = columns[torch.from_numpy(objects)]
    return targets


def query_loss(output, targets, live, labels, canvas):
    """Sums of class, L1 and GIoU over layers, frames and queries."""
    size = torch.tensor([canvas[1], canvas[0]] * 2)
    sums = dict.fromkeys(("class", "l1", "giou"), 0.0)
    for layer, target in enumerate(targets):
        for n, (*_, ignore, _) in enumerate(frames_of(labels)):
            alone = left_alone(to_corners(output.boxes[layer, n]) * size, ignore)
            for q in range(target.shape[1]):
                column = int(target[n, q])
                wanted = torch.zeros_like(output.logits[layer, n, q])
                if column >= 0:
                    wanted[labels.labels[n, column]] = 1.0
                    box, gt = output.boxes[layer, n, q], labels.centres[n, column]
                if column >= 0 and labels.seen[n, column]:
                    sums["l1"] += (box - gt).abs().sum()
                    sums["giou"] += 1 - generalized_iou(to_corners(box), to_corners(gt))
                if column >= 0 or (live[n, q] and not alone[q]):
                    sums["class"] += F.binary_cross_entropy_with_logits(
                        output.logits[layer, n, q], wanted, reduction="sum"
                    )
    return sums


def associate(transported, state, owned, found, detections, labels):
    """Cross-entropy of tracks and detections that have a right answer."""
    loss, boxes = torch.zeros(()), to_corners(detections.boxes[-1])
    slots, count = owned.shape[1], found.shape[1]
    for b in range(len(owned)):
        if not labels.real[b].any():
            continue
        where, good = {}, []
        for k in range(count):
            column = int(found[b, k])
            if column >= 0 and iou(boxes[b, k], to_corners(labels.centres[b, column])) > 0.5:
                where[column] = k
                good.append(k)
        for m in range(slots):
            if state.active[b, m] and state.track_id[b, m] >= 0:
                follow = where.get(int(owned[b, m]), count) if owned[b, m] >= 0 else count
                loss = loss - transported.of_track[b, m, follow]
        for k in good:
            owners = [m for m in range(slots) if owned[b, m] == found[b, k]]
            loss = loss - transported.of_detection[b, owners[0] if owners else slots, k]
    return loss
