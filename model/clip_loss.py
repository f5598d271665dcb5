"""The loss of a batch of clips: track through them as at inference, with labels deciding fate.

Shapes: B clips, T frames a clip, G objects a frame at most (padded), M slots, K detection
queries, Q = M + K, P patches, S patch side.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from model.communicator import Communicator
from model.decoder import DecoderOutput
from model.distillation import Distiller
from model.geometry import iou, to_centres, to_corners
from model.losses import dense_loss, ignored, quality_loss, query_loss
from model.matching import assign_dense, match
from model.teacher import Teacher
from model.tracker import Decoded, Memory, Tracker
from model.tracks import TrackState, Transition, place_newborns
from model.training import Objective
from model.transport import Transported

WEIGHTS = {
    "dense_class": 1.0,
    "dense_giou": 2.0,
    "class": 1.0,
    "l1": 5.0,
    "giou": 2.0,
    "track_class": 1.0,
    "track_l1": 5.0,
    "track_giou": 2.0,
    "associate": 1.0,
    "quality": 1.0,
}
"""Weight of each term; those of the decoders' boxes are Deformable DETR's."""

_FORGET = 0.15  # chance that a matched newborn is not carried on, so that newborns come later too
_PHANTOM = 0.02  # chance that a detection of nothing is carried on, so that tracks learn to end


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
        seeds: (B,) int64, for what is drawn while tracking through a clip: the same whoever
            else is in the batch, so that a clip counts alike on one worker and on many.
        names: where each clip came from.
        clean: images before they were degraded, for the teacher; None without one.
    """

    images: Tensor
    valid: Tensor
    patches: Tensor
    boxes: Tensor
    ids: Tensor
    labels: Tensor
    ignore: Tensor
    severity: Tensor
    seeds: Tensor
    names: tuple[str, ...]
    clean: Tensor | None = None

    def to(self, device: torch.device | str) -> "ClipBatch":
        """Return the batch on a device."""
        moved: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in moved.items():
            if isinstance(value, Tensor):
                moved[name] = value.to(device, non_blocking=True)
        return ClipBatch(**moved)


@dataclass(frozen=True, slots=True)
class _Labels:
    """One frame of one clip: objects to find, and boxes to leave alone (canvas share, pixels)."""

    corners: Tensor
    centres: Tensor
    ids: Tensor
    labels: Tensor
    ignore: Tensor


def clip_loss(
    tracker: Tracker, batch: ClipBatch, workers: Communicator
) -> tuple[Tensor, dict[str, Tensor], Memory]:
    """Total loss of a batch, its terms before weighting, and the memory of its B * T frames.

    Args:
        tracker: in training mode.
        batch: on the tracker's device.
        workers: who share the batch; its loss is divided by the objects of all of them.
    """
    count, length = batch.images.shape[:2]
    memory = tracker.encode(
        batch.images.flatten(0, 1), batch.valid.flatten(0, 1), batch.patches.flatten(0, 1)
    )
    height, width = batch.images.shape[-2:]
    labels = [
        [_frame_labels(batch, b, t, height, width) for t in range(length)] for b in range(count)
    ]
    flat = [frame for clip in labels for frame in clip]
    # A batch counts as one object at least: one in all, whoever shares it.
    least = 1.0 / workers.world
    own = memory.quality.new_tensor(sum(len(f.ids) for f in flat))
    objects = workers.mean(own).clamp(min=least)

    totals = _dense_terms(memory, flat)
    mass = workers.mean(totals.pop("mass").detach()).clamp(min=least)
    terms = {name: value / mass for name, value in totals.items()}
    found = _match_detections(memory.detections, flat)
    live = torch.ones(found.shape[1:], dtype=torch.bool, device=found.device)
    sums = _query_terms(memory.detections, found, live, flat, width, height)

    state = tracker.initial_state(count)
    generators = [torch.Generator().manual_seed(int(seed)) for seed in batch.seeds]
    for t in range(length):
        frames = torch.arange(count, device=found.device) * length + t
        now, current = memory[frames], [clip[t] for clip in labels]
        decoded = tracker.decode(now, state)
        owned = _owned(state, current)
        if t > 0:
            layers = owned.expand(len(decoded.tracks.logits), -1, -1)
            tracks = _query_terms(decoded.tracks, layers, state.active, current, width, height)
            tracks["associate"] = _associate(
                decoded.transported, state, owned, found[-1, frames], now.detections, current
            )
            for name, value in tracks.items():
                key = name if name == "associate" else f"track_{name}"
                sums[key] = sums[key] + value if key in sums else value
        target = torch.cat([owned, _unowned(found[-1, frames], owned)], 1)
        transition = _carry(state, decoded, target, current, generators)
        state = tracker.advance(state, transition, decoded)
    terms |= {name: value / objects for name, value in sums.items()}
    everyone = workers.gather
    severity = everyone(batch.severity.flatten())
    terms["quality"] = quality_loss(everyone(memory.quality), severity)
    total = torch.stack([WEIGHTS[name] * value for name, value in terms.items()]).sum()
    return total, terms, memory


class ClipObjective(Objective):
    """Tracking through labelled clips, with distillation beside it or without.

    Args:
        distiller: projectors and terms; trained along. None trains without a teacher.
        teacher: what it learns from, on the tracker's device; batches bring clean frames.
    """

    def __init__(self, distiller: Distiller | None = None, teacher: Teacher | None = None) -> None:
        super().__init__()
        self.distiller = distiller
        # In a tuple: as a child it would be trained, averaged and saved with the projectors.
        self._teacher = (teacher,)

    def forward(self, tracker: Tracker, batch: ClipBatch) -> tuple[Tensor, dict[str, float]]:
        """Total loss of a batch on the tracker's device, and its terms.

        Raises:
            ValueError: there is a distiller, but no teacher or no clean frames.
        """
        total, terms, memory = clip_loss(tracker, batch, self.communicator)
        shown = {name: float(value.detach()) for name, value in terms.items()}
        if self.distiller is None:
            return total, shown
        (teacher,) = self._teacher
        if teacher is None or batch.clean is None:
            raise ValueError("distillation needs a teacher, and batches with clean frames")
        features = teacher(batch.clean.flatten(0, 1), batch.valid.flatten(0, 1))
        wanted = self.distiller.targets(features)
        loss, parts = self.distiller(memory, wanted, labelled_boxes(batch))
        return total + loss, shown | parts

    def after_backward(self, mean: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Hold the share of gradient that distillation has."""
        return {} if self.distiller is None else self.distiller.after_backward(mean)


def labelled_boxes(batch: ClipBatch) -> list[Tensor]:
    """Corners (n, 4) in canvas pixels of the objects that count, for each of the B * T frames."""
    real = (batch.ids >= 0) & ~batch.ignore
    return [b[k] for b, k in zip(batch.boxes.flatten(0, 1), real.flatten(0, 1), strict=True)]


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


@torch.no_grad()
def _match_detections(output: DecoderOutput, labels: list[_Labels]) -> Tensor:
    """Object of each detection query at each layer, (L, N, K); -1 for none.

    Detections do not know the tracks, so they answer for every object in every frame: there is
    no conflict between detecting and associating (CO-MOT, MeMOTR) left to settle.
    """
    targets = torch.full(output.logits.shape[:3], -1, device=output.boxes.device)
    for n, frame in enumerate(labels):
        if len(frame.ids):
            for layer in range(len(targets)):
                targets[layer, n] = match(
                    output.logits[layer, n], output.boxes[layer, n], frame.centres, frame.labels
                )
    return targets


def _owned(state: TrackState, labels: list[_Labels]) -> Tensor:
    """Object of each slot, (B, M); -1 for empty slots and tracks whose object is out of sight."""
    owned = torch.full_like(state.track_id, -1)
    for b, frame in enumerate(labels):
        same = (state.track_id[b][:, None] == frame.ids[None]) & state.active[b][:, None]
        if len(frame.ids):
            owned[b] = torch.where(same.any(1), same.long().argmax(1), -1)
    return owned


def _unowned(found: Tensor, owned: Tensor) -> Tensor:
    """Objects of detections (B, K), without those that a track owns."""
    taken = (found[:, :, None] == owned[:, None, :]).any(2)
    return torch.where(taken, -1, found)


def _associate(
    transported: Transported,
    state: TrackState,
    owned: Tensor,
    found: Tensor,
    detections: DecoderOutput,
    labels: list[_Labels],
) -> Tensor:
    """Cross-entropy of both sides of transport: whom a track follows, whose a detection is.

    Args:
        transported, detections: of B frames.
        owned: (B, M) object of each track. found: (B, K) object of each detection.
    """
    loss = transported.of_track.sum() * 0
    boxes = to_corners(detections.boxes[-1].detach())
    slots, count = owned.shape[1], found.shape[1]
    for b, frame in enumerate(labels):
        if len(frame.ids) == 0:
            continue
        real = torch.nonzero(found[b] >= 0).squeeze(1)
        # A detection that does not lie on its object is no place to follow anybody to.
        good = iou(boxes[b, real], to_corners(frame.centres)[found[b, real]]) > 0.5
        real = real[good]
        where = torch.full((len(frame.ids),), count, device=owned.device)
        where[found[b, real]] = real
        # One that holds nobody has no right answer; one whose object is gone has to stay.
        known = state.active[b] & (state.track_id[b] >= 0)
        follow = torch.where(owned[b] >= 0, where[owned[b].clamp(min=0)], count)[known]
        loss = loss - transported.of_track[b, known].gather(1, follow[:, None]).sum()
        mine = owned[b][:, None] == found[b, real][None]
        owner = torch.where(mine.any(0), mine.long().argmax(0), slots)
        loss = loss - transported.of_detection[b][owner, real].sum()
    return loss


def _query_terms(
    output: DecoderOutput,
    targets: Tensor,
    live: Tensor,
    labels: list[_Labels],
    width: int,
    height: int,
) -> dict[str, Tensor]:
    """Sums over frames and layers; targets (L, B, Q), live (B, Q)."""
    size = output.boxes.new_tensor([width, height, width, height])
    corners = to_corners(output.boxes.detach()) * size
    sums: dict[str, Tensor] = {}
    for layer, target in enumerate(targets):
        for b, frame in enumerate(labels):
            counted = live[b] & ~ignored(corners[layer, b], frame.ignore)
            terms = query_loss(
                output.logits[layer, b],
                output.boxes[layer, b],
                target[b],
                frame.centres,
                frame.labels,
                counted,
            )
            for name, value in terms.items():
                sums[name] = sums[name] + value if name in sums else value
    return sums


@torch.no_grad()
def _carry(
    state: TrackState,
    decoded: Decoded,
    target: Tensor,
    labels: list[_Labels],
    generators: list[torch.Generator],
) -> Transition:
    """Decide what goes on to the next frame: labels instead of thresholds.

    Matched queries go on as what they matched; queries that wrongly score over a half go on as
    false positives; a track that drifted off its object (IoU <= 1/2) loses it (MOTRv2, MeMOTR).
    These are the mistakes of inference, at the rate the model makes them; a few detections of
    nothing are added, as the model soon makes too few to learn from.
    """
    slots = state.active.shape[1]
    scores = decoded.logits.sigmoid().amax(-1) * decoded.standing
    boxes = to_corners(decoded.boxes)
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

    count = matched.shape[1] - slots
    draw = torch.stack([torch.rand(count, generator=g) for g in generators]).to(scores.device)
    newborn = torch.where(matched[:, slots:], draw >= _FORGET, draw < _PHANTOM) | wrong[:, slots:]
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
