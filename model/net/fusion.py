"""Dynamic semantic weight regulation (DSWR): frame quality sets the weight of semantics.

Shapes: N frames, B streams, Q queries, D width, L maps.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SemanticGate(nn.Module):
    """`w = sigmoid(b - softplus(a) * k * (q - 1/2) + r(query))`, never rising with quality q.

    The slope is negative by construction, and the residual of a query does not depend on q, so
    with all else equal a worse picture never gets a smaller weight. Quality is detached: the
    tracking loss must not change how quality is measured.
    """

    _SLOPE = 4.0
    _RESIDUAL = 0.5  # at most this far, in logits: about an eighth of the range of w

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(-0.5))
        self.slope = nn.Parameter(torch.tensor(0.5413))  # softplus gives 1
        self.residual = nn.Linear(dim, 1)
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.residual.bias)

    def logit(self, quality: Tensor) -> Tensor:
        """Gate logit of frames: quality in [0, 1] of any shape, same shape out."""
        return self.bias - F.softplus(self.slope) * self._SLOPE * (quality.detach() - 0.5)

    def forward(self, quality: Tensor, query: Tensor | None = None) -> Tensor:
        """Semantic weight in (0, 1).

        Args:
            quality: (B,) in [0, 1].
            query: (B, Q, D) or None.

        Returns:
            (B,) without queries, (B, Q) with them.
        """
        logit = self.logit(quality)
        if query is None:
            return logit.sigmoid()
        residual = self._RESIDUAL * self.residual(query).squeeze(-1).tanh()
        return (logit[:, None] + residual).sigmoid()


class SemanticFusion(nn.Module):
    """Mix visual maps with semantics: `(1 - w c) visual + w c semantic`.

    Each channel has a learned ceiling c in (0, 1). It keeps a part of the visual map even at
    w = 1, because the location of a person comes from the visual map alone.
    """

    def __init__(self, dim: int, semantic_dim: int, levels: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(semantic_dim, dim, 1) for _ in range(levels))
        self.ceiling = nn.Parameter(torch.full((levels, dim), -1.0))

    def forward(self, visual: Sequence[Tensor], semantic: Tensor, weight: Tensor) -> list[Tensor]:
        """Return fused maps.

        Args:
            visual: L maps (N, D, h_l, w_l).
            semantic: (N, S, h, w).
            weight: (N,) semantic weight of each frame.
        """
        fused = []
        for level, features in enumerate(visual):
            # Projected before it is resized: fewer channels to resize.
            meaning = self.project[level](semantic)
            if meaning.shape[2:] != features.shape[2:]:
                meaning = F.interpolate(
                    meaning, size=features.shape[2:], mode="bilinear", align_corners=False
                )
            share = weight[:, None] * self.ceiling[level].sigmoid()
            fused.append(torch.lerp(features, meaning, share[:, :, None, None].to(features.dtype)))
        return fused
