"""Changes of light, contrast and colour by a lookup table."""

import math

import cv2
import numpy as np

_GREY = 0.15  # share of clips without colour


def draw_curves(random: np.random.Generator) -> np.ndarray:
    """Draw a lookup table (1, 256, 3) uint8 of gamma, gain and tint."""
    gamma, gain = math.exp(random.uniform(-0.4, 0.4)), math.exp(random.uniform(-0.3, 0.3))
    tint = np.exp(random.uniform(-0.12, 0.12, size=3))
    levels = (np.arange(256) / 255)[:, None] ** gamma
    return np.clip(255 * gain * tint * levels, 0, 255).astype(np.uint8)[None]


def recolour(pixels: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """Apply a lookup table to a picture (h, w, 3) uint8."""
    return cv2.LUT(pixels, curves)


def draw_grey(random: np.random.Generator) -> bool:
    """Draw whether a clip loses its colours."""
    return random.random() < _GREY


def without_colour(pixels: np.ndarray) -> np.ndarray:
    """A picture (h, w, 3) uint8 RGB in grey."""
    return cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
