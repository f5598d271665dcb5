"""The state of all tracks as a value, and the lifecycle as one pure function.

Shapes: B streams, M slots, K detection queries, C classes, D width. Slots never move: a track
keeps its slot until it ends, so every tensor has a static shape.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from model.net.geometry import pairwise_iou
from model.track.rules import TrackRules

_PERSISTENCE = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackState:
    """All tracks of B streams between two frames.

    Attributes:
        content, long: (B, M, D) next query and long memory.
        boxes: (B, M, 4) centre form in [0, 1] of the canvas, where the track was last seen.
        velocity: (B, M, 2) of its centre, in canvas widths and heights a frame, smoothed.
        logits: (B, M, C) its class logits then.
        track_id: (B, M) int64, -1 in free slots.
        active: (B, M) bool.
        misses: (B, M) int64, consecutive frames unseen.
        next_id: (B,) int64, the next new identity; identities are never reused.
        quality: (B,) smoothed frame quality, negative before the first frame.
    """

    content: Tensor
    long: Tensor
    boxes: Tensor
    velocity: Tensor
    logits: Tensor
    track_id: Tensor
    active: Tensor
    misses: Tensor
    next_id: Tensor
    quality: Tensor

    @classmethod
    def empty(
        cls, batch: int, slots: int, dim: int, classes: int, device: torch.device | str = "cpu"
    ) -> "TrackState":
        """State before the first frame: no tracks, identities from 1."""
        return cls(
            content=torch.zeros(batch, slots, dim, device=device),
            long=torch.zeros(batch, slots, dim, device=device),
            boxes=torch.full((batch, slots, 4), 0.5, device=device),
            velocity=torch.zeros(batch, slots, 2, device=device),
            logits=torch.zeros(batch, slots, classes, device=device),
            track_id=torch.full((batch, slots), -1, dtype=torch.long, device=device),
            active=torch.zeros(batch, slots, dtype=torch.bool, device=device),
            misses=torch.zeros(batch, slots, dtype=torch.long, device=device),
            next_id=torch.ones(batch, dtype=torch.long, device=device),
            quality=torch.full((batch,), -1.0, device=device),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return the fields by name, for saving a state between segments."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], like: "TrackState") -> "TrackState":
        """Return a saved state, on the device of another one.

        Args:
            tensors: as of `tensors`; other names are not looked at.
            like: a state of the same model and number of streams. It may have more slots.

        Raises:
            ValueError: a tensor is missing, or has another shape or type than those of the model.
        """
        slots = tensors["active"].shape[1:2] if "active" in tensors else ()
        taken = {}
        for name, expected in like.tensors().items():
            shape = list(expected.shape)
            if expected.dim() > 1 and slots and slots[0] <= shape[1]:
                shape[1] = slots[0]
            found = tensors.get(name)
            if found is None or found.dtype != expected.dtype or list(found.shape) != shape:
                there = "missing" if found is None else f"{found.dtype} {list(found.shape)}"
                raise ValueError(
                    f"the state of the tracks is of another model: {name} is {there}, not "
                    f"{expected.dtype} {shape}"
                )
            taken[name] = found.to(expected.device)
        return cls(**taken)

    def without_tracks(self, empty: "TrackState") -> "TrackState":
        """Return the state before the first frame of a new shot: identities go on, nothing else.

        Args:
            empty: the model's state before the first frame. The model has to make it: on a GPU its
                work is done in an order that other threads do not keep.
        """
        return replace(empty, next_id=self.next_id)

    def aged(self, frames: int | Tensor, miss_tolerance: int | Tensor) -> "TrackState":
        """Return the state after frames that were not stepped, because they showed nothing new.

        A track that was seen in the last frame is still there. One that was unseen stays unseen,
        and ends as it would have ended if the frames had been stepped.

        Args:
            frames: their number, 0 or more, or (B,) numbers.
            miss_tolerance: as of `TrackRules`.
        """
        absent = self.active & (self.misses > 0)
        misses = torch.where(absent, self.misses + _by_stream(frames, 2), self.misses)
        active = self.active & (misses <= _by_stream(miss_tolerance, 2))
        return replace(
            self,
            active=active,
            misses=torch.where(active, misses, 0),
            track_id=torch.where(active, self.track_id, -1),
        )


def expected_boxes(state: TrackState) -> Tensor:
    """Boxes of the tracks in the next frame at their last velocity: (B, M, 4) centre form.

    The velocity decays while a person is out of sight: in each further frame it is
    `_PERSISTENCE` of that in the frame before.
    """
    frames = (state.misses + 1).to(state.boxes.dtype)[..., None]
    travelled = (1 - _PERSISTENCE**frames) / (1 - _PERSISTENCE)
    centre = state.boxes[..., :2] + travelled * state.velocity
    return torch.cat([centre, state.boxes[..., 2:]], -1).clamp(1e-4, 1 - 1e-4)


def updated_velocity(
    state: TrackState, boxes: Tensor, visible: Tensor, born: Tensor, rate: float
) -> Tensor:
    """Velocity after a frame, (B, M, 2): a moving average that starts at 0.

    Args:
        state: before the frame.
        boxes: (B, M, 4) centre form, where the tracks are in it.
        visible, born: (B, M) bool.
        rate: share of the newest step.
    """
    step = (boxes[..., :2] - state.boxes[..., :2]) / (state.misses + 1)[..., None]
    velocity = torch.where(visible[..., None], state.velocity.lerp(step, rate), state.velocity)
    return velocity.masked_fill(born[..., None], 0.0)


@dataclass(frozen=True, slots=True)
class Transition:
    """What one frame changes in the slots; all (B, M) but `next_id` (B,).

    Attributes:
        source: index of the query whose output the slot takes, in [0, M + K).
        track_id, active, misses: the new state.
        visible: the slot's object was seen in this frame.
        born: the slot's track began in this frame.
        next_id: the next new identity.
    """

    source: Tensor
    track_id: Tensor
    active: Tensor
    misses: Tensor
    visible: Tensor
    born: Tensor
    next_id: Tensor


def lifecycle(
    state: TrackState,
    scores: Tensor,
    boxes: Tensor,
    rules: TrackRules,
) -> Transition:
    """Decide which tracks were seen, missed, ended, and which began.

    A track is seen if its score reaches `keep_threshold` and no better track that is seen
    overlaps it by more than `duplicate_iou`. A track that is unseen for more than
    `miss_tolerance` consecutive frames ends, and its identity is not used again. A detection of
    at least `birth_threshold` begins a track unless it overlaps a seen track, or a better
    newborn, by more than `duplicate_iou`. When slots run out the best newborns get them.

    Args:
        state: the tracks before this frame.
        scores: (B, M + K) of all queries, track slots first.
        boxes: (B, M + K, 4) corners.
        rules: the thresholds.
    """
    slots = state.active.shape[1]
    track_scores, detection_scores = scores[:, :slots], scores[:, slots:]
    overlap = _by_stream(rules.duplicate_iou, 3)
    visible = state.active & (track_scores >= _by_stream(rules.keep_threshold, 2))
    # Not `&=`, which the export to ONNX lacks.
    seen = track_scores.masked_fill(~visible, -1.0)
    visible = visible & ~_worse(seen, boxes[:, :slots], overlap)
    misses = torch.where(visible, 0, state.misses + state.active.long())
    active = state.active & (misses <= _by_stream(rules.miss_tolerance, 2))

    newborn = (detection_scores >= _by_stream(rules.birth_threshold, 2)) & ~_duplicates(
        detection_scores, boxes[:, slots:], boxes[:, :slots], visible, overlap
    )
    source, born = place_newborns(active, newborn, detection_scores)
    # The best newborn gets the first free slot, so identities go down with the score.
    order = born.long().cumsum(1) - 1
    track_id = torch.where(active, state.track_id, -1)
    track_id = torch.where(born, state.next_id[:, None] + order, track_id)
    return Transition(
        source=source,
        track_id=track_id,
        active=active | born,
        misses=torch.where(active, misses, 0),
        visible=visible | born,
        born=born,
        next_id=state.next_id + born.sum(1),
    )


def _by_stream(rule: float | Tensor, dimensions: int) -> float | Tensor:
    """A rule in a shape that broadcasts over (B, …) of some dimensions."""
    if isinstance(rule, Tensor):
        return rule.reshape(-1, *[1] * (dimensions - 1))
    return rule


def _duplicates(
    scores: Tensor, boxes: Tensor, track_boxes: Tensor, seen: Tensor, threshold: float | Tensor
) -> Tensor:
    """Mark detections (B, K) that overlap a seen track or a better detection too much."""
    on_track = (pairwise_iou(boxes, track_boxes) > threshold) & seen[:, None]
    return on_track.any(2) | _worse(scores, boxes, threshold)


def _worse(scores: Tensor, boxes: Tensor, threshold: float | Tensor) -> Tensor:
    """Mark queries (B, Q) that overlap a better one by more than the threshold."""
    overlaps = pairwise_iou(boxes, boxes) > threshold
    rank = torch.arange(scores.shape[1], device=scores.device)
    own, other = scores[:, :, None], scores[:, None, :]
    better = (other > own) | ((other == own) & (rank[None, :] < rank[:, None]))
    return (overlaps & better).any(2)


def place_newborns(active: Tensor, newborn: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Give free slots to newborns, best first.

    Args:
        active: (B, M) bool, slots taken.
        newborn: (B, K) bool.
        scores: (B, K).

    Returns:
        source (B, M): the query each slot takes its output from, itself unless newborn;
        born (B, M) bool.
    """
    batch, slots = active.shape
    count = min(slots, newborn.shape[1])
    free = active.long().argsort(dim=1, stable=True)[:, :count]
    best = scores.masked_fill(~newborn, -torch.inf).argsort(dim=1, descending=True, stable=True)
    best = best[:, :count]
    placed = newborn.gather(1, best) & ~active.gather(1, free)
    source = torch.arange(slots, device=active.device).expand(batch, slots).clone()
    source.scatter_(1, free, torch.where(placed, slots + best, free))
    born = torch.zeros_like(active).scatter(1, free, placed)
    return source, born
