"""The loss of tracks through clips: step as at inference, with labels deciding fate.

Shapes: B clips, T frames a clip, G objects a frame at most, M slots, K detection queries,
Q = M + K.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.clip_batch import FrameLabels
from model.decoder import DecoderOutput
from model.geometry import iou, to_corners
from model.query_terms import add, query_terms
from model.tracker import Decoded, Memory, Tracker
from model.tracks import TrackState, Transition, place_newborns
from model.transport import Transported

_FORGET = 0.15  # chance that a matched newborn is not carried on, so that newborns come later too
_PHANTOM = 0.02  # chance that a detection of nothing is carried on, so that tracks learn to end


def track_terms(
    tracker: Tracker,
    memory: Memory,
    found: Tensor,
    labels: Sequence[Sequence[FrameLabels]],
    seeds: Tensor,
    canvas: tuple[int, int],
) -> dict[str, Tensor]:
    """Sums of `track_class`, `track_l1`, `track_giou` and `associate`; none for single frames.

    Args:
        tracker: in training mode.
        memory: of the B * T frames, clip by clip.
        found: (B * T, K) object of each detection, -1 for none.
        labels: B lists of T.
        seeds: (B,) for what is drawn on the way.
        canvas: height and width in pixels.
    """
    count, length = len(labels), len(labels[0])
    sums: dict[str, Tensor] = {}
    state = tracker.initial_state(count)
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    # The last frame's fates matter to nobody, and a single frame has no tracks at all.
    for t in range(length if length > 1 else 0):
        frames = torch.arange(count, device=found.device) * length + t
        now, current, seen = memory[frames], [clip[t] for clip in labels], found[frames]
        decoded = tracker.decode(now, state)
        owned = _owned(state, current)
        if t > 0:
            layers = owned.expand(len(decoded.tracks.logits), -1, -1)
            terms = query_terms(decoded.tracks, layers, state.active, current, canvas)
            add(sums, {f"track_{name}": value for name, value in terms.items()})
            asked = _associate(decoded.transported, state, owned, seen, now.detections, current)
            add(sums, {"associate": asked})
        if t < length - 1:
            target = torch.cat([owned, _unowned(seen, owned)], 1)
            transition = _carry(state, decoded, target, current, generators)
            state = tracker.advance(state, transition, decoded)
    return sums


def _owned(state: TrackState, labels: Sequence[FrameLabels]) -> Tensor:
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
    labels: Sequence[FrameLabels],
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


@torch.no_grad()
def _carry(
    state: TrackState,
    decoded: Decoded,
    target: Tensor,
    labels: Sequence[FrameLabels],
    generators: Sequence[torch.Generator],
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
    # As at inference, a track is seen only where a detection answers it.
    followed = matched[:, :slots] & (decoded.standing[:, :slots] > 0)
    drifted = followed & (overlap[:, :slots] <= 0.5)
    wrong = ~matched & (scores > 0.5)
    visible = state.active & ((followed & ~drifted) | wrong[:, :slots])
    # A track whose object is out of sight waits for it; one that followed somebody else is over.
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
