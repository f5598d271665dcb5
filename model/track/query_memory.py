"""How what a query has seen becomes the query of the next frame.

After Gao & Wang, "MeMOTR", ICCV 2023: a short memory of the last frame and a long one that moves
slowly. Shapes: B streams, M slots, D width.
"""

import torch
from torch import Tensor, nn


class QueryMemory(nn.Module):
    """Short and long memory of a track, the long one written less the worse the picture."""

    def __init__(self, dim: int, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.short = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.mix = nn.Linear(2 * dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(
        self,
        embedding: Tensor,
        content: Tensor,
        long: Tensor,
        visible: Tensor,
        born: Tensor,
        semantic_weight: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the next content and long memory, both (B, M, D).

        Args:
            embedding: (B, M, D) decoder output of each slot's query in this frame.
            content, long: (B, M, D) as they were.
            visible: (B, M) bool; what a query saw is believed only where its object was seen.
            born: (B, M) bool; new tracks start their long memory here.
            semantic_weight: (B, M); a poor frame writes little into long memory.
        """
        rate = self.rate * (1 - semantic_weight)[..., None].to(long.dtype)
        slow = torch.lerp(long, embedding, rate.expand_as(long))
        slow = torch.where(born[..., None], embedding, slow)
        new_long = torch.where(visible[..., None], slow, long)
        mixed = self.mix(torch.cat([embedding + self.short(embedding), new_long], dim=-1))
        new_content = self.norm(new_long + mixed)
        return torch.where(visible[..., None], new_content, content), new_long
