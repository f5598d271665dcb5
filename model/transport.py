"""Where each track is in a new frame: attention that carries boxes and evidence.

A track query brings the box of the last frame. Refining it by regression alone has to be learned
from nothing, and a track that lags behind reads the wrong place. Here the track first asks the
proposals of the new frame, which are where people are now, and takes over what they say.

Shapes: B streams, M slots, K proposals, C classes, D width.
"""

import torch
from torch import Tensor, nn

from model.geometry import pairwise_iou, to_corners
from model.proposals import Proposals


class Transport(nn.Module):
    """Soft association inside the model: by overlap, score and looks, or stay where it was.

    The weights of the attention are trained with everything else, by the loss of the boxes.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(dim, dim // 2), nn.Linear(dim, dim // 2)
        # Looks start silent: at first only overlap and score are known to mean something.
        nn.init.zeros_(self.key.weight)
        nn.init.zeros_(self.key.bias)
        self.overlap = nn.Parameter(torch.tensor(10.0))
        self.score = nn.Parameter(torch.tensor(1.0))
        self.stay = nn.Parameter(torch.tensor(3.0))
        self.fade = nn.Parameter(torch.tensor(1.0))

    def forward(
        self, content: Tensor, boxes: Tensor, logits: Tensor, proposals: Proposals
    ) -> tuple[Tensor, Tensor]:
        """Return reference boxes (B, M, 4) and prior logits (B, M, C) for the new frame.

        Args:
            content: (B, M, D) track queries.
            boxes: (B, M, 4) centre form in [0, 1], where the tracks were last seen.
            logits: (B, M, C) their class logits then; a track that stays fades from them.
            proposals: of the new frame.
        """
        key = self.key(proposals.content).float()
        looks = self.query(content).float() @ key.transpose(1, 2) / key.shape[-1] ** 0.5
        overlap = pairwise_iou(to_corners(boxes), to_corners(proposals.boxes))
        score = torch.log(proposals.logits.sigmoid().amax(-1) + 1e-4)
        asked = looks + self.overlap * overlap + self.score * score[:, None]
        stay = self.stay.expand(*asked.shape[:2], 1)
        share = torch.cat([asked, stay], dim=-1).softmax(-1)
        moved, stayed = share[..., :-1], share[..., -1:]
        new_boxes = moved @ proposals.boxes + stayed * boxes
        new_logits = moved @ proposals.logits + stayed * (logits - self.fade)
        return new_boxes.clamp(1e-4, 1 - 1e-4), new_logits
