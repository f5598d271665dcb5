"""The semantic student: a light branch that is distilled from the teacher."""

import torch
from torch import Tensor, nn

from model.net.encoder import SeparableBlock


class SemanticStudent(nn.Module):
    """Turns the visual map at stride 16 into a dense semantic map and a global semantic vector."""

    def __init__(self, dim: int, semantic_dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            SeparableBlock(dim), SeparableBlock(dim), nn.Conv2d(dim, semantic_dim, 1)
        )
        self.attend = nn.Conv2d(semantic_dim, 1, 1, bias=False)  # softmax cancels a bias
        self.pool = nn.Linear(semantic_dim, semantic_dim)

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return semantics.

        Args:
            x: (N, D, h, w).
            valid: (N, h, w) bool; padding takes no part in the global vector.

        Returns:
            dense map (N, S, h, w), zero on padding; global vector (N, S).
        """
        dense = self.body(x)
        logits = self.attend(dense).float().masked_fill(~valid[:, None], -1e4)
        share = logits.flatten(1).softmax(-1).to(dense.dtype)
        pooled = torch.einsum("ncp,np->nc", dense.flatten(2), share)
        return dense * valid[:, None].to(dense.dtype), self.pool(pooled)


class SemanticProjection(nn.Module):
    """Semantics as the decoders read them: the semantic map, with the scene vector added."""

    def __init__(self, dim: int, semantic_dim: int) -> None:
        super().__init__()
        self.place = nn.Conv2d(semantic_dim, dim, 1)
        self.scene = nn.Linear(semantic_dim, dim)

    def forward(self, semantic: Tensor, scene: Tensor) -> Tensor:
        """Bring the semantic map (N, S, h, w) and the scene vector (N, S) to (N, D, h, w)."""
        return self.place(semantic) + self.scene(scene)[..., None, None]
