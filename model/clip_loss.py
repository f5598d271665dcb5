"""The loss of a batch of clips: track through them as at inference, with labels deciding fate.

Shapes: B clips, T frames a clip, G objects a frame at most (padded), M slots, K detection
queries, Q = M + K, P patches, S patch side.
"""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from model.decoder import DecoderOutput
from model.geometry import iou, to_centres, to_corners
from model.losses import dense_loss, ignored, quality_loss, query_loss
from model.matching import assign_dense, match
from model.tracker import Memory, Tracker
from model.tracks import TrackState, Transition, place_newborns

WEIGHTS = {
    "dense_class": 1.0,
    "dense_giou": 2.0,
    "class": 1.0,
    "l1": 5.0,
    "giou": 2.0,
    "quality": 1.0,
}
"""Weight of each term; those of the decoder's boxes are Deformable DETR's."""


@dataclass(frozen=True, slots=True)
class ClipBatch:
    """A batch of labelled clips.

    Attributes:
        images: (B, T, 3, H, W) uint8 RGB on the canvas.
        valid: (B, T, 2) height and width in pixels of the picture on the canvas.
        patches: (B, T, P, S, S) uint8.
        boxes: (B, T, G, 4) corners in canvas pixels.
        ids: (B, T, G) int64, the same object the same id through a clip; -1 is padding.
        labels: (B, T, G) int64.
        ignore: (B, T, G) bool: neither object nor background.
        severity: (B, T) of the degradation we applied, 0 for none, -1 where unknown.
        names: where each clip came from.
    """

    images: Tensor
    valid: Tensor
    patches: Tensor
    boxes: Tensor
    ids: Tensor
    labels: Tensor
    ignore: Tensor
    severity: Tensor
    names: tuple[str, ...]

    def to(self, device: torch.device | str) -> "ClipBatch":
        """Return the batch on a device."""
        tensors = ((f.name, getattr(self, f.name)) for f in fields(self) if f.name != "names")
        moved = {name: t.to(device, non_blocking=True) for name, t in tensors}
        return replace(self, **moved)


@dataclass(frozen=True, slots=True)
class _Labels:
    """One frame of one clip: objects to find, and boxes to leave alone (canvas share, pixels)."""

    corners: Tensor
    centres: Tensor
    ids: Tensor
    labels: Tensor
    ignore: Tensor


def clip_loss(
    tracker: Tracker,
    batch: ClipBatch,
    generator: torch.Generator,
    *,
    proposals_only: bool = False,
    forget: float = 0.1,
) -> tuple[Tensor, dict[str, float]]:
    """Total loss of a batch, and its terms for the log.

    Args:
        tracker: in training mode.
        batch: on the tracker's device.
        generator: CPU generator for the random forgetting.
        proposals_only: train what gives proposals (backbone, encoder, dense head) and quality,
            and leave the decoder alone: twice as fast while there is nothing yet to decode.
        forget: chance that a matched newborn is not carried on, so that detection queries keep
            learning to find objects in later frames.
    """
    count, length = batch.images.shape[:2]
    memory = tracker.encode(
        batch.images.flatten(0, 1), batch.valid.flatten(0, 1), batch.patches.flatten(0, 1)
    )
    height, width = batch.images.shape[-2:]
    labels = [
        [_frame_labels(batch, b, t, height, width) for t in range(length)] for b in range(count)
    ]
    objects = max(1, sum(len(frame.ids) for clip in labels for frame in clip))

    totals = _dense_terms(memory, [frame for clip in labels for frame in clip])
    mass = totals.pop("mass").detach().clamp(min=1.0)
    terms = {name: value / mass for name, value in totals.items()}
    terms["quality"] = quality_loss(memory.quality, batch.severity.flatten())

    state = tracker.initial_state(count)
    sums: dict[str, Tensor] = {}
    for t in range(0 if proposals_only else length):
        frames = memory[torch.arange(count, device=batch.images.device) * length + t]
        queries, quality = tracker.queries(frames, state)
        output = tracker.decoder(queries, frames.maps, frames.semantic)
        current = [clip[t] for clip in labels]
        targets = _assign(output, state, current)
        for name, value in _query_terms(output, targets, queries.live, current, width, height):
            sums[name] = sums.get(name, torch.zeros((), device=value.device)) + value
        transition = _carry(state, output, targets[-1], current, generator, forget)
        state = tracker.advance(state, transition, output, queries.semantic_weight, quality)
    terms |= {name: value / objects for name, value in sums.items()}
    total = torch.stack([WEIGHTS[name] * value for name, value in terms.items()]).sum()
    return total, {name: float(value.detach()) for name, value in terms.items()}


def _frame_labels(batch: ClipBatch, b: int, t: int, height: int, width: int) -> _Labels:
    given = batch.ids[b, t] >= 0
    ignore = batch.ignore[b, t] & given
    real = given & ~ignore
    corners = batch.boxes[b, t][real].float()
    size = corners.new_tensor([width, height, width, height])
    return _Labels(
        corners,
        to_centres(corners / size),
        batch.ids[b, t][real],
        batch.labels[b, t][real],
        batch.boxes[b, t][ignore].float(),
    )


def _dense_terms(memory: Memory, labels: list[_Labels]) -> dict[str, Tensor]:
    dense = memory.dense
    sums: dict[str, Tensor] = {}
    for n, frame in enumerate(labels):
        boxes, logits = dense.boxes[n], dense.logits[n]
        with torch.no_grad():
            index, quality = assign_dense(
                logits.sigmoid(), boxes, dense.centres, dense.strides, frame.corners, frame.labels
            )
            counted = dense.valid[n] & ~ignored(boxes, frame.ignore)
        terms = dense_loss(logits, boxes, index, quality, frame.corners, frame.labels, counted)
        for name, value in terms.items():
            key = name if name == "mass" else f"dense_{name}"
            sums[key] = sums[key] + value if key in sums else value
    return sums


def _assign(output: DecoderOutput, state: TrackState, labels: list[_Labels]) -> list[Tensor]:
    """Targets (B, Q) of every layer.

    A track keeps its object. Free detection queries share out the objects no track owns, in the
    last layer; in earlier layers they answer for all objects (CO-MOT, MeMOTR), or they would see
    hardly a positive after the first frame.
    """
    slots = state.active.shape[1]
    layers = len(output.logits)
    targets = [
        torch.full(output.logits.shape[1:3], -1, device=state.boxes.device) for _ in range(layers)
    ]
    for b, frame in enumerate(labels):
        if len(frame.ids) == 0:
            continue
        same = (state.track_id[b][:, None] == frame.ids[None]) & state.active[b][:, None]
        owned = torch.where(same.any(1), same.long().argmax(1), -1)
        free = torch.nonzero(~same.any(0)).squeeze(1)
        everything = torch.arange(len(frame.ids), device=free.device)
        for layer in range(layers):
            wanted = free if layer == layers - 1 else everything
            found = match(
                output.logits[layer, b, slots:],
                output.boxes[layer, b, slots:],
                frame.centres[wanted],
                frame.labels[wanted],
            )
            targets[layer][b, :slots] = owned
            if len(wanted):
                targets[layer][b, slots:] = torch.where(found >= 0, wanted[found], -1)
    return targets


def _query_terms(
    output: DecoderOutput,
    targets: list[Tensor],
    live: Tensor,
    labels: list[_Labels],
    width: int,
    height: int,
) -> list[tuple[str, Tensor]]:
    size = output.boxes.new_tensor([width, height, width, height])
    corners = to_corners(output.boxes.detach()) * size
    terms: list[tuple[str, Tensor]] = []
    for layer, target in enumerate(targets):
        for b, frame in enumerate(labels):
            counted = live[b] & ~ignored(corners[layer, b], frame.ignore)
            terms += query_loss(
                output.logits[layer, b],
                output.boxes[layer, b],
                target[b],
                frame.centres,
                frame.labels,
                counted,
            ).items()
    return terms


@torch.no_grad()
def _carry(
    state: TrackState,
    output: DecoderOutput,
    target: Tensor,
    labels: list[_Labels],
    generator: torch.Generator,
    forget: float,
) -> Transition:
    """Decide what goes on to the next frame: labels instead of thresholds.

    Matched queries go on as what they matched; queries that wrongly score over a half go on as
    false positives; a track that drifted off its object (IoU <= 1/2) loses it (MOTRv2, MeMOTR).
    These are the mistakes of inference, at the rate the model makes them.
    """
    slots = state.active.shape[1]
    scores = output.logits[-1].sigmoid().amax(-1)
    boxes = to_corners(output.boxes[-1])
    identity = torch.full_like(target, -1)
    overlap = torch.zeros_like(scores)
    for b, frame in enumerate(labels):
        hit = target[b] >= 0
        object_boxes = to_corners(frame.centres)
        identity[b, hit] = frame.ids[target[b, hit]]
        overlap[b, hit] = iou(boxes[b, hit], object_boxes[target[b, hit]])

    matched = target >= 0
    drifted = matched[:, :slots] & (overlap[:, :slots] <= 0.5)
    wrong = ~matched & (scores > 0.5)
    visible = state.active & ((matched[:, :slots] & ~drifted) | wrong[:, :slots])
    # A track whose object is out of sight waits for it; one that has lost it and fades is over.
    waiting = state.active & ~visible & ~drifted & (state.track_id >= 0)
    active = visible | waiting
    kept_id = torch.where(active, state.track_id, -1)

    draw = torch.rand(matched[:, slots:].shape, generator=generator).to(scores.device)
    newborn = (matched[:, slots:] & (draw >= forget)) | wrong[:, slots:]
    # True objects come first when slots run out.
    source, born = place_newborns(active, newborn, scores[:, slots:] + matched[:, slots:].float())
    return Transition(
        source=source,
        track_id=torch.where(born, identity.gather(1, source), kept_id),
        active=active | born,
        misses=torch.where(waiting, state.misses + 1, 0),
        visible=visible | born,
        born=born,
        next_id=state.next_id,
    )
