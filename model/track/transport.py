"""Which detection of a new frame each track is: attention in both directions.

A track query brings the box of the last frame. Refining it by regression alone has to be learned
from nothing, and a track that lags behind reads the wrong place. Here tracks first ask the
detections of the new frame, which are where people are now, and take over what they say; and
detections ask the tracks whether anybody is them, which is what makes a newborn.

Shapes: B streams, M slots, K detections, C classes, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.net.attention import pair_features
from model.net.decoder import DecoderOutput
from model.net.geometry import pairwise_iou, to_corners
from model.track.tracks import TrackState, expected_boxes

_AGREED = 0.05  # least product of both shares; 0.02 to 0.25 track alike


@dataclass(frozen=True, slots=True)
class Transported:
    """Where the tracks of the last frame are in this one.

    Attributes:
        boxes: (B, M, 4) centre form in [0, 1], references for the track queries.
        logits: (B, M, C) what the new frame's detections say of each track's class.
        answered: (B, M) bool, a detection and the track chose each other.
        newness: (B, K) in [0, 1], how far a detection is nobody's.
        of_track: (B, M, K + 1) log-probabilities of a track's detections; the last: none.
        of_detection: (B, M + 1, K) log-probabilities of a detection's tracks; the last: new.
    """

    boxes: Tensor
    logits: Tensor
    answered: Tensor
    newness: Tensor
    of_track: Tensor
    of_detection: Tensor


class Transport(nn.Module):
    """Soft association inside the model, trained with everything else.

    A softmax over detections times a softmax over tracks (Rocco et al., "NCNet", NeurIPS 2018):
    only where both sides choose each other before all others does a track move, and it moves all
    the way. A mean of two places is a third one where nobody is, and two tracks cannot both
    follow one person.
    """

    def __init__(self, dim: int, hidden: int = 16) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(dim, dim // 2), nn.Linear(dim, dim // 2)
        judge = nn.Linear(hidden, 1)
        # How the boxes lie, and for how long the track has not been seen.
        self.relation = nn.Sequential(nn.Linear(8, hidden), nn.ReLU(), judge)
        # Looks and relations start silent: at first only overlap and score mean something.
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
        """Ask both sides.

        Args:
            state: before the frame; its tracks stay, and fade, where nothing answers them.
            detections: of the new frame.
        """
        boxes, logits = detections.boxes[-1].detach(), detections.logits[-1].detach()
        score = logits.sigmoid().amax(-1)
        expected = expected_boxes(state)
        affinity = self._affinity(state, expected, detections.embedding, boxes, score)
        asked = affinity + self.score * torch.log(score + 1e-4)[:, None]
        stay = self.stay.expand(*asked.shape[:2], 1)
        of_track = torch.cat([asked, stay], dim=-1).log_softmax(-1)
        claims = affinity.masked_fill(~state.active[..., None], -1e4)
        new = self.new.expand(len(claims), 1, claims.shape[2])
        of_detection = torch.cat([claims, new], dim=1).log_softmax(1)

        moved = _mutual((of_track[..., :-1] + of_detection[:, :-1]).exp())
        answered = moved.sum(-1, keepdim=True)
        stayed = 1 - answered
        # A person seen a moment ago is believed in through a frame that shows him badly.
        past = self.inertia.sigmoid()
        heard = torch.lerp(moved @ logits, (1 - stayed) * state.logits, past)
        return Transported(
            (moved @ boxes + stayed * expected).clamp(1e-4, 1 - 1e-4),
            heard + stayed * (state.logits - F.softplus(self.fade)),
            answered.squeeze(-1) > 0,
            of_detection[:, -1].exp(),
            of_track,
            of_detection,
        )

    def _affinity(
        self, state: TrackState, expected: Tensor, embedding: Tensor, boxes: Tensor, score: Tensor
    ) -> Tensor:
        """How much each track and each detection look like one person: (B, M, K)."""
        key = self.key(embedding).float()
        looks = self.query(state.content).float() @ key.transpose(1, 2) / key.shape[-1] ** 0.5
        pairs = pair_features(expected, state.logits.sigmoid().amax(-1), boxes, score)
        unseen = torch.log1p(state.misses.to(pairs.dtype))[:, :, None, None]
        pairs = torch.cat([pairs, unseen.expand(*pairs.shape[:3], 1)], -1)
        relation = self.relation(pairs).squeeze(-1).float()
        overlap = pairwise_iou(to_corners(expected), to_corners(boxes))
        return looks + relation + self.overlap * overlap


def _mutual(agreed: Tensor) -> Tensor:
    """One where a track (B, M, K) and a detection agree on each other best, else zero.

    Of equals the first is best, so that nobody has two partners.
    """
    nobody = torch.zeros_like(agreed, dtype=torch.bool)
    of_track = nobody.scatter(2, agreed.argmax(2, keepdim=True), True)
    of_detection = nobody.scatter(1, agreed.argmax(1, keepdim=True), True)
    return (of_track & of_detection & (agreed > _AGREED)).to(agreed.dtype)
