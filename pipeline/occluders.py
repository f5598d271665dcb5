"""Something before the scene, so that people in training clips go out of sight and come back.

Shapes: T frames a clip, (h, w) pixels.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

_HIDDEN = 0.6  # a box of which more than this share is covered is nobody's fault to miss


def draw_occluder(length: int, random: np.random.Generator) -> np.ndarray:
    """A post or a passing vehicle: (T, 4) corners in shares of the picture, frame by frame."""
    width, height = random.uniform(0.04, 0.2), random.uniform(0.5, 1.2)
    bottom = random.uniform(0.7, 1.1)
    start, way = random.uniform(0, 1), random.uniform(-0.5, 0.5)
    centre = start + way * np.linspace(0, 1, length)
    low, high = np.full(length, bottom - height), np.full(length, bottom)
    corners = np.stack([centre - width / 2, low, centre + width / 2, high], 1)
    return np.clip(corners, 0, 1)


def paint(clip: np.ndarray, places: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Frames (T, h, w, 3) uint8 with the occluder at places (T, 4), in colours of the scene.

    It is a small piece of the picture stretched until nobody in it can be made out.
    """
    height, width = clip.shape[1:3]
    side = (max(2, width // 16), max(2, height // 16))
    x, y = int(random.integers(width - side[0] + 1)), int(random.integers(height - side[1] + 1))
    piece = Image.fromarray(clip[0, y : y + side[1], x : x + side[0]])
    gain = random.uniform(0.4, 1.1)
    out = clip.copy()
    for frame, place in zip(out, places * [width, height, width, height], strict=True):
        x1, y1, x2, y2 = place.round().astype(int)
        if x2 > x1 and y2 > y1:
            pixels = np.asarray(piece.resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR))
            frame[y1:y2, x1:x2] = np.clip(pixels * gain, 0, 255).astype(np.uint8)
    return out


def hidden(boxes: np.ndarray, place: Sequence[float]) -> np.ndarray:
    """Mark boxes (n, 4), corners in shares of the picture, that the occluder mostly covers."""
    low = np.maximum(boxes[:, :2], place[:2])
    high = np.minimum(boxes[:, 2:], place[2:])
    covered = np.clip(high - low, 0, None).prod(1)
    area = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(1)
    return covered > _HIDDEN * np.maximum(area, 1e-9)
