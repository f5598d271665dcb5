"""The loss of tracks through clips: steps as at inference, but labels decide what is carried on.

Shapes: B clips, T frames a clip, G objects a frame (padded), M slots, K detection queries,
Q = M + K.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from model.learn.clip_batch import FrameLabels
from model.learn.losses import query_loss
from model.net.decoder import DecoderOutput
from model.net.geometry import iou, to_corners
from model.track.frames import Decoded, EncodedFrames
from model.track.tracker import Tracker
from model.track.tracks import TrackState, Transition, place_newborns
from model.track.transport import Transported

_FORGET = 0.15  # chance that a matched newborn is dropped, so that tracks also begin late
_PHANTOM = 0.02  # chance that a false detection is carried on, so that tracks learn to end


def track_terms(
    tracker: Tracker,
    encoded: EncodedFrames,
    found: Tensor,
    labels: FrameLabels,
    seeds: Tensor,
    canvas: tuple[int, int],
) -> dict[str, Tensor]:
    """Sums of `track_class`, `track_l1`, `track_giou` and `associate`; none for single frames.

    Args:
        tracker: in training mode.
        encoded: the B * T frames, clip by clip.
        found: (B * T, K) object of each detection, -1 for none.
        labels: of the B * T frames.
        seeds: (B,) for the random draws of each clip.
        canvas: height and width in pixels.
    """
    count = len(seeds)
    length = len(labels) // count
    sums: dict[str, Tensor] = {}
    state = tracker.initial_state(count)
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds.tolist()]
    # A single frame has no tracks.
    for t in range(length if length > 1 else 0):
        frames = torch.arange(count, device=found.device) * length + t
        now, current, seen = encoded[frames], labels[frames], found[frames]
        decoded = tracker.decode(now, state)
        owned = _owned(state, current)
        if t > 0:
            layers = owned.expand(len(decoded.tracks.logits), -1, -1)
            known = current.whole
            terms = query_loss(decoded.tracks, layers, state.active, current, canvas, known)
            _add(sums, {f"track_{name}": value for name, value in terms.items()})
            loss = _associate(decoded.transported, state, owned, seen, now.people, current)
            _add(sums, {"associate": loss})
        if t < length - 1:
            target = torch.cat([owned, _unowned(seen, owned)], 1)
            transition = _carry(state, decoded, target, current, generators)
            state = tracker.advance(state, transition, decoded)
    return sums


def _owned(state: TrackState, labels: FrameLabels) -> Tensor:
    """Object of each slot, (B, M); -1 for empty slots and for objects not in the frame."""
    same = (state.track_id[..., None] == labels.ids[:, None]) & labels.real[:, None]
    same &= state.active[..., None]
    return torch.where(same.any(2), same.long().argmax(2), -1)


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
    labels: FrameLabels,
) -> Tensor:
    """Cross-entropy of transport in both directions: detection of a track, track of a detection.

    Args:
        transported, detections: of B frames.
        owned: (B, M) object of each track. found: (B, K) object of each detection.
    """
    slots, count = owned.shape[1], found.shape[1]
    boxes = to_corners(detections.boxes[-1].detach())
    # A track must not learn to follow a detection that is off its object.
    on_object = iou(boxes, to_corners(_rows(labels.centres, found.clamp(min=0)))) > 0.5
    good = (found >= 0) & on_object
    # Detection of each object. The last column collects detections without an object.
    objects = labels.ids.shape[1]
    where = torch.full((len(found), objects + 1), count, device=found.device)
    numbers = torch.arange(count, device=found.device).expand_as(found)
    where.scatter_(1, torch.where(good, found, objects), numbers)
    where[:, objects] = count
    # False tracks have no right answer. A track whose object is gone must match no detection.
    known = state.active & (state.track_id >= 0) & labels.real.any(1, keepdim=True)
    follow = torch.where(owned >= 0, where.gather(1, owned.clamp(min=0)), count)
    tracks = transported.of_track.gather(2, follow[..., None]).squeeze(2)
    same = (owned[:, :, None] == found[:, None, :]) & good[:, None]
    owner = torch.where(same.any(1), same.long().argmax(1), slots)
    claimed = transported.of_detection.gather(1, owner[:, None]).squeeze(1)
    return -torch.where(known, tracks, 0.0).sum() - torch.where(good, claimed, 0.0).sum()


@torch.no_grad()
def _carry(
    state: TrackState,
    decoded: Decoded,
    target: Tensor,
    labels: FrameLabels,
    generators: Sequence[torch.Generator],
) -> Transition:
    """Decide what is carried to the next frame, by labels instead of thresholds.

    A matched query is carried on as its object. A query that wrongly scores over 1/2 is carried on
    as a false track. A track that drifted off its object (IoU <= 1/2) loses it (MOTRv2, MeMOTR).
    So training has the mistakes of inference at the rate the model makes them. A few false
    detections are added, because the model soon makes too few to learn from.
    """
    slots = state.active.shape[1]
    scores = decoded.logits.sigmoid().amax(-1) * decoded.standing
    matched, object_index = target >= 0, target.clamp(min=0)
    identity = torch.where(matched, labels.ids.gather(1, object_index), -1)
    wanted = to_corners(_rows(labels.centres, object_index))
    overlap = iou(to_corners(decoded.boxes), wanted) * matched

    # As at inference, a track is seen only where a detection answers it.
    followed = matched[:, :slots] & (decoded.standing[:, :slots] > 0)
    drifted = followed & (overlap[:, :slots] <= 0.5)
    wrong = ~matched & (scores > 0.5)
    visible = state.active & ((followed & ~drifted) | wrong[:, :slots])
    # A track whose object is out of sight waits for it. A drifted track ends.
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


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x (B, G, 4) at index (B, Q): (B, Q, 4)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


def _add(sums: dict[str, Tensor], terms: dict[str, Tensor]) -> None:
    """Add terms to sums by name."""
    for name, value in terms.items():
        sums[name] = sums[name] + value if name in sums else value
