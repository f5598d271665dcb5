"""Track memory: turns a query's output in one frame into its content for the next frame.

After Gao & Wang, "MeMOTR", ICCV 2023: a short memory of the last frame and a long one that changes
slowly. Shapes: B streams, M slots, D width.
"""

import torch
from torch import Tensor, nn


class QueryMemory(nn.Module):
    """Short and long memory of tracks; a poor picture changes the long one little."""

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
            visible: (B, M) bool; both stay as they were where the object was not seen.
            born: (B, M) bool; the long memory of a new track starts as its embedding.
            semantic_weight: (B, M); a high weight, as of a poor frame, writes little.
        """
        rate = self.rate * (1 - semantic_weight)[..., None].to(long.dtype)
        slow = torch.lerp(long, embedding, rate.expand_as(long))
        slow = torch.where(born[..., None], embedding, slow)
        new_long = torch.where(visible[..., None], slow, long)
        mixed = self.mix(torch.cat([embedding + self.short(embedding), new_long], dim=-1))
        new_content = self.norm(new_long + mixed)
        return torch.where(visible[..., None], new_content, content), new_long
