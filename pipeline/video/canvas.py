"""Pictures on the student's canvas, and their luma, for training and for measures."""

import numpy as np
import torch
from PIL import Image

from model.net.letterbox import Letterbox

LONGEST = 960
"""Greatest longer side in pixels. Larger views are shrunk before they are degraded, because
degradation is the slowest step."""


def letterboxed(pixels: np.ndarray, height: int, width: int) -> tuple[torch.Tensor, list[int]]:
    """Fit a picture (h, w, 3) uint8 on a canvas (3, height, width); return it and its (h, w)."""
    box = Letterbox(pixels.shape[0], pixels.shape[1], height, width)
    size = (box.scaled_width, box.scaled_height)
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[: size[1], : size[0]] = np.asarray(
        Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
    )
    return torch.from_numpy(canvas).permute(2, 0, 1).contiguous(), [size[1], size[0]]


def grey(pixels: np.ndarray) -> np.ndarray:
    """Luma (..., h, w) uint8 of pictures (..., h, w, 3), in integers."""
    # Channel by channel, because NumPy's matrix product of integers is slow.
    weighed = np.multiply(pixels[..., 0], np.uint16(77), dtype=np.uint16)
    weighed += np.multiply(pixels[..., 1], np.uint16(150), dtype=np.uint16)
    weighed += np.multiply(pixels[..., 2], np.uint16(29), dtype=np.uint16)
    return (weighed >> 8).astype(np.uint8)
