"""What colours a person wears, from head to foot, as a picture shows them."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_BANDS = 6  # of equal height, one below the other
COLOURS = 3 * _BANDS
"""Numbers that describe the colours of a person."""

# The part of a box that shows the person rather than what is behind, in shares of its sides.
_LEFT, _RIGHT = 0.2, 0.8
_TOP, _BOTTOM = 0.08, 0.92


def colours(picture: Array, boxes: Array) -> Array:
    """Mean red, green and blue in bands of the middle of each box: (N, COLOURS) float32 in [0, 1].

    Args:
        picture: (H, W, 3) uint8 RGB.
        boxes: (N, 4) centre x, centre y, width, height in its pixels; they may reach beyond it.
    """
    height, width = picture.shape[:2]
    means = np.zeros((len(boxes), _BANDS, 3), np.float32)
    across = boxes[:, :1] + boxes[:, 2:3] * (np.array([_LEFT, _RIGHT]) - 0.5)
    down = boxes[:, 1:2] + boxes[:, 3:] * (np.linspace(_TOP, _BOTTOM, _BANDS + 1) - 0.5)
    x = across.round().astype(int).clip(0, width)
    y = down.round().astype(int).clip(0, height)
    for n in range(len(boxes)):
        left = min(x[n, 0], width - 1)
        for band in range(_BANDS):
            # At least one pixel, the nearest one where a band lies beyond the picture.
            top = min(y[n, band], height - 1)
            shown = picture[top : max(top + 1, y[n, band + 1]), left : max(left + 1, x[n, 1])]
            means[n, band] = shown.mean((0, 1), dtype=np.float64) / 255
    return means.reshape(len(boxes), COLOURS)
