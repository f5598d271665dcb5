"""Degradations for training alone: by OpenCV, in a fifth of the time.

They have the tables and characters of `pipeline.degrade.kinds`. Their pixels are not the
benchmark's, and differ a little between versions of OpenCV.
"""

import math

import cv2
import numpy as np
from PIL import Image

from pipeline.degrade.kinds import (
    DEFOCUS_RADIUS,
    SHRINK,
    TRANSMISSION,
    Character,
    degrade_frame,
    random_bytes,
    size_factor,
    strength,
)

JPEG = "jpeg"
_QUALITY = (95.0, 60.0, 38.0, 24.0, 14.0, 8.0)  # of JPEG, at levels 0 to 5


def fast_degrade(
    frame: np.ndarray, kind: str, level: float, character: Character, index: int
) -> np.ndarray:
    """Degrade one frame by one kind.

    Args:
        frame: (h, w, 3) uint8; it is not changed.
        kind: `jpeg`, or one of PORTABLE_KINDS but `swing`.
        level: 0 (clean) to 5.
        character: of the clip.
        index: of the frame in its video.
    """
    if kind == "defocus":
        return _defocus(frame, level, character, index)
    if kind == "low_resolution":
        return _low_resolution(frame, level, character)
    if kind == "haze":
        return _haze(frame, level, character, index)
    if kind == JPEG:
        return _jpeg(frame, level)
    return degrade_frame(frame, kind, level, character, index)


def _defocus(frame: np.ndarray, level: float, character: Character, index: int) -> np.ndarray:
    hunting = 1 + 0.1 * character.drift(index)
    radius = strength(DEFOCUS_RADIUS, level) * size_factor(frame) * hunting
    kernel = np.convolve(_box(radius), _box(0.5 * radius))
    return cv2.sepFilter2D(frame, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)


def _box(radius: float) -> np.ndarray:
    """Weights of a mean over 2 * radius + 1 pixels; the pixels at its ends count in part."""
    whole = math.floor(radius)
    kernel = np.ones(2 * whole + 3)
    kernel[[0, -1]] = radius - whole
    normalised: np.ndarray = kernel / kernel.sum()
    return normalised


def _low_resolution(frame: np.ndarray, level: float, character: Character) -> np.ndarray:
    height, width = frame.shape[:2]
    factor = strength(SHRINK, level)
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    shrunk = cv2.resize(frame, small, interpolation=cv2.INTER_AREA)
    cubic = character.enlarge_filter == Image.Resampling.BICUBIC
    enlarge = cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
    return cv2.resize(shrunk, (width, height), interpolation=enlarge)


def _haze(frame: np.ndarray, level: float, character: Character, index: int) -> np.ndarray:
    height, width = frame.shape[:2]
    # Depth: far at the top, near at the bottom, in patches that drift sideways.
    patches = random_bytes(character.seed, -1 & 0xFFFFFFFF, 60).reshape(5, 12).astype(np.float32)
    field = cv2.resize(patches, (2 * width, height), interpolation=cv2.INTER_LINEAR)
    left = round(width * (0.5 + 0.5 * character.drift(index)))
    rows = (128 - 96 * np.arange(height, dtype=np.float32) / height)[:, None]
    depth = rows + field[:, left : left + width] / 4
    clear = cv2.exp(depth * (math.log(strength(TRANSMISSION, level)) / 112))
    air = np.empty_like(frame)
    air[:] = character.airlight
    return cv2.blendLinear(frame, air, clear, 1 - clear)


def _jpeg(frame: np.ndarray, level: float) -> np.ndarray:
    quality = round(strength(_QUALITY, level))
    # OpenCV takes red for blue in both directions, which cancels out and saves two copies.
    _, data = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
