"""Association of tracks with the detections of a new frame, inside the model.

A track query has the box of the last frame. A decoder that only refines this box reads the wrong
place when the track lags behind. So a track first moves to the detection that it is associated
with. A detection that is associated with no track can start a new one.

Shapes: B streams, M slots, K detections, C classes, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.net.attention import judge_pairs, pair_features
from model.net.decoder import DecoderOutput
from model.net.geometry import pairwise_iou, to_corners
from model.track.tracks import TrackState, expected_boxes

_AGREED = 0.05  # least product of both shares; 0.02 to 0.25 track alike


@dataclass(frozen=True, slots=True)
class Transported:
    """The tracks of the last frame at their place in this one.

    Attributes:
        boxes: (B, M, 4) centre form in [0, 1], references for the track queries.
        logits: (B, M, C) class logits of each track, from its detection and its past.
        found: (B, M, C) class logits of its detection alone, 0 without one.
        answered: (B, M) bool, the track has a detection.
        newness: (B, K) in [0, 1], probability that a detection belongs to no track.
        of_track: (B, M, K + 1) log-probabilities of a track's detections; the last: none.
        of_detection: (B, M + 1, K) log-probabilities of a detection's tracks; the last: new.
    """

    boxes: Tensor
    logits: Tensor
    found: Tensor
    answered: Tensor
    newness: Tensor
    of_track: Tensor
    of_detection: Tensor


class Transport(nn.Module):
    """Mutual-best association, trained with the rest of the model.

    The score of a pair is a softmax over detections times a softmax over tracks (Rocco et al.,
    "NCNet", NeurIPS 2018). A track takes a detection if each is the other's best. The choice is
    hard: a weighted mean of two boxes would lie where nobody is. No detection goes to two tracks.
    """

    def __init__(self, dim: int, hidden: int = 16) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(dim, dim // 2), nn.Linear(dim, dim // 2)
        judge = nn.Linear(hidden, 1)
        # Geometry and scores of the pair, and for how long the track has not been seen.
        self.relation = nn.Sequential(nn.Linear(8, hidden), nn.ReLU(), judge)
        # Appearance and relation start at 0: at first only overlap and score count.
        for layer in (self.key, judge):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.overlap = nn.Parameter(torch.tensor(10.0))
        self.score = nn.Parameter(torch.tensor(1.0))
        self.stay = nn.Parameter(torch.tensor(3.0))
        self.new = nn.Parameter(torch.tensor(3.0))
        self.fade = nn.Parameter(torch.tensor(1.0))
        self.inertia = nn.Parameter(torch.tensor(-1.0))

    def forward(self, state: TrackState, detections: DecoderOutput) -> Transported:
        """Associate tracks and detections.

        Args:
            state: before the frame. A track without a detection keeps its expected box, and its
                logits go down.
            detections: of the new frame.
        """
        boxes, logits = detections.boxes[-1].detach(), detections.logits[-1].detach()
        score = logits.sigmoid().amax(-1)
        expected = expected_boxes(state)
        affinity = self._affinity(state, expected, detections.embedding, boxes, score)
        wanted = affinity + self.score * torch.log(score + 1e-4)[:, None]
        stay = self.stay.expand(*wanted.shape[:2], 1)
        of_track = torch.cat([wanted, stay], dim=-1).log_softmax(-1)
        claims = affinity.masked_fill(~state.active[..., None], -1e4)
        new = self.new.expand(len(claims), 1, claims.shape[2])
        of_detection = torch.cat([claims, new], dim=1).log_softmax(1)

        moved = _mutual((of_track[..., :-1] + of_detection[:, :-1]).exp())
        answered = moved.sum(-1, keepdim=True)
        stayed = 1 - answered
        # Past logits keep a track alive through a single poor frame.
        past = self.inertia.sigmoid()
        found = moved @ logits
        blended = torch.lerp(found, (1 - stayed) * state.logits, past)
        return Transported(
            (moved @ boxes + stayed * expected).clamp(1e-4, 1 - 1e-4),
            blended + stayed * (state.logits - F.softplus(self.fade)),
            found,
            answered.squeeze(-1) > 0,
            of_detection[:, -1].exp(),
            of_track,
            of_detection,
        )

    def _affinity(
        self, state: TrackState, expected: Tensor, embedding: Tensor, boxes: Tensor, score: Tensor
    ) -> Tensor:
        """Affinity of each track and each detection: (B, M, K)."""
        key = self.key(embedding).float()
        appearance = self.query(state.content).float() @ key.transpose(1, 2) / key.shape[-1] ** 0.5
        pairs = pair_features(expected, state.logits.sigmoid().amax(-1), boxes, score)
        unseen = torch.log1p(state.misses.to(score.dtype))[:, :, None].expand_as(pairs[0])
        relation = judge_pairs(self.relation, [*pairs, unseen]).squeeze(1).float()
        overlap = pairwise_iou(to_corners(expected), to_corners(boxes))
        return appearance + relation + self.overlap * overlap


def _mutual(agreed: Tensor) -> Tensor:
    """1 where a track and a detection are each other's best, else 0: (B, M, K).

    Of equal scores the first is the best, so that each has one partner at most.
    """
    none = torch.zeros_like(agreed, dtype=torch.bool)
    # 1 instead of True, which tracing for another runtime cannot record.
    of_track = none.scatter(2, agreed.argmax(2, keepdim=True), 1)
    of_detection = none.scatter(1, agreed.argmax(1, keepdim=True), 1)
    return (of_track & of_detection & (agreed > _AGREED)).to(agreed.dtype)
