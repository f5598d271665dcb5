"""Light, contrast and colour of a picture, changed by a look-up table."""

import math

import cv2
import numpy as np

_GREY = 0.15  # share without colour


def draw_curves(random: np.random.Generator) -> np.ndarray:
    """Curves (1, 256, 3) uint8 of gamma, gain and tint."""
    gamma, gain = math.exp(random.uniform(-0.4, 0.4)), math.exp(random.uniform(-0.3, 0.3))
    tint = np.exp(random.uniform(-0.12, 0.12, size=3))
    levels = (np.arange(256) / 255)[:, None] ** gamma
    return np.clip(255 * gain * tint * levels, 0, 255).astype(np.uint8)[None]


def recolour(pixels: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """A picture (h, w, 3) uint8 seen through curves."""
    return cv2.LUT(pixels, curves)


def draw_grey(random: np.random.Generator) -> bool:
    """Whether a clip has no colours."""
    return random.random() < _GREY


def without_colour(pixels: np.ndarray) -> np.ndarray:
    """A picture (h, w, 3) uint8 RGB in grey."""
    return cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
