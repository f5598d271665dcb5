"""Frame quality in [0, 1], from five measured statistics and early features of the backbone.

Statistics are measured at native resolution: scaling to the model's canvas hides the traces of
codec and sensor. They are measured on a fixed number of small luma patches, so the cost is the
same for every video.

Shapes: N frames, P patches a frame, S pixels a patch side.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

STATISTICS = ("sharpness", "noise", "blockiness", "luma", "contrast")
PATCHES, PATCH = 8, 64
_BLOCK = 8  # pixels: the transform block of JPEG, MPEG and H.264
_ROWS, _COLUMNS = 2, 4


def sample_patches(luma: np.ndarray) -> np.ndarray:
    """Cut a fixed grid of patches out of a luma plane.

    Patches start on multiples of the codec block, so that blockiness keeps its phase. Pictures
    smaller than a patch are padded by their edge.

    Args:
        luma: (H, W) uint8 at native resolution.

    Returns:
        (PATCHES, PATCH, PATCH) uint8.
    """
    height, width = luma.shape
    if height < PATCH or width < PATCH:
        pad = ((0, max(0, PATCH - height)), (0, max(0, PATCH - width)))
        luma = np.pad(luma, pad, mode="edge")
        height, width = luma.shape
    patches = np.empty((PATCHES, PATCH, PATCH), np.uint8)
    for row in range(_ROWS):
        for column in range(_COLUMNS):
            y = int((height - PATCH) * (row + 0.5) / _ROWS) // _BLOCK * _BLOCK
            x = int((width - PATCH) * (column + 0.5) / _COLUMNS) // _BLOCK * _BLOCK
            patches[row * _COLUMNS + column] = luma[y : y + PATCH, x : x + PATCH]
    return patches


def frame_statistics(patches: Tensor) -> Tensor:
    """Measure five statistics of frames that need no learning.

    - noise: standard deviation of the grey levels that a local plane does not explain, under the
      kernel of Immerkaer, "Fast noise variance estimation", CVIU 64(2), 1996; in [0, 1] of full
      scale. Taken as the median over pixels and the lower quartile over patches, because edges
      and texture would raise a mean.
    - sharpness: root mean square gradient beyond what that noise alone would give, over the
      contrast: blur spreads an edge out, which keeps its sum and lowers its energy.
    - blockiness: mean step across block borders over the mean step elsewhere, as log2.
    - luma, contrast: mean and standard deviation of the grey levels in [0, 1].

    Args:
        patches: (N, P, S, S) uint8.

    Returns:
        (N, 5) float32 in the order of `STATISTICS`.
    """
    grey = patches.float() / 255
    n, p = grey.shape[:2]
    step_x = grey[..., 1:] - grey[..., :-1]
    step_y = grey[..., 1:, :] - grey[..., :-1, :]

    bend = step_x[..., 1:] - step_x[..., :-1]
    residual = bend[..., 2:, :] - 2 * bend[..., 1:-1, :] + bend[..., :-2, :]
    # The kernel has norm 6; half of a normal variable lies within 0.6745 standard deviations.
    sigma = _median(residual.abs().view(n, p, -1)) / (6 * 0.6745)
    noise = _lower_quartile(sigma)

    mean = grey.mean(dim=(2, 3))
    variance = grey.square().mean(dim=(2, 3)) - mean.square()
    contrast = variance.clamp(min=0).sqrt().mean(dim=1)
    energy = (step_x.square().mean(dim=(1, 2, 3)) + step_y.square().mean(dim=(1, 2, 3))) / 2
    # The difference of two noisy pixels has variance 2 sigma^2.
    signal = (energy - 2 * noise.square()).clamp(min=0).sqrt()
    sharpness = signal / (contrast + 0.02)

    # Border steps are columns 7, 15, ... of the differences; means over the rest follow by sums.
    across = step_x.abs().mean(dim=(1, 2)) + step_y.abs().mean(dim=(1, 3))
    border = across[:, _BLOCK - 1 :: _BLOCK]
    inside = (across.sum(1) - border.sum(1)) / (across.shape[1] - border.shape[1])
    blockiness = torch.log2((border.mean(1) + 2e-3) / (inside + 2e-3))

    return torch.stack([sharpness, noise, blockiness, mean.mean(dim=1), contrast], dim=1)


def _median(values: Tensor) -> Tensor:
    """Lower median over the last axis, as `torch.median` has it."""
    if values.device.type != "cpu":
        return values.median(dim=-1).values
    middle = (values.shape[-1] - 1) // 2
    if torch.jit.is_tracing():  # other runtimes sort, and know nothing of NumPy
        return values.sort(dim=-1).values[..., middle]
    # On a CPU NumPy's selection takes a tenth of the time of torch's.
    return torch.from_numpy(np.partition(values.numpy(), middle, axis=-1)[..., middle].copy())


def _lower_quartile(values: Tensor) -> Tensor:
    """Quantile 0.25 over axis 1, as `torch.quantile` has it, which other runtimes lack."""
    place = (values.shape[1] - 1) / 4
    below = int(place)
    ordered = values.sort(dim=1).values
    above = ordered[:, min(below + 1, values.shape[1] - 1)]
    return ordered[:, below].lerp(above, place - below)


class FrameQuality(nn.Module):
    """Map statistics and early features of a frame to its quality in [0, 1]."""

    def __init__(self, early_channels: int, width: int = 32) -> None:
        super().__init__()
        self.read = nn.Conv2d(early_channels, width, 3, stride=2, padding=1)
        self.head = nn.Sequential(
            nn.Linear(2 * width + 2 * len(STATISTICS), width), nn.SiLU(), nn.Linear(width, 1)
        )

    def forward(self, early: Tensor, valid: Tensor, statistics: Tensor) -> Tensor:
        """Return quality.

        Args:
            early: (N, C, h, w) first features of the backbone.
            valid: (N, h, w) bool, False on padding.
            statistics: (N, 5) from `frame_statistics`.

        Returns:
            (N,) float in [0, 1]; 1 is clean, 0 is the worst.
        """
        # A quarter of the positions is enough for a mean, and costs less.
        read = F.relu(self.read(early[:, :, ::2, ::2]))
        mask = valid[:, None, ::4, ::4].to(read.dtype)
        count = mask.sum(dim=(2, 3)).clamp(min=1)
        mean = (read * mask).sum(dim=(2, 3)) / count
        spread = ((read - mean[..., None, None]).square() * mask).sum(dim=(2, 3)) / count
        # Statistics span decades (noise 0.001 to 0.2), so the head also sees their logarithms.
        log = torch.log(statistics.abs() + 1e-3)
        features = torch.cat([mean, (spread + 1e-6).sqrt(), statistics, log], dim=1)
        return self.head(features).squeeze(1).sigmoid()
