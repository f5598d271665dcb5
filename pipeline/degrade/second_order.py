"""The second-order degradation chain of Real-ESRGAN, drawn anew for every frame.

Blur, resize, noise and JPEG, then all of it again, with a last sinc filter: Wang et al.,
"Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", 2021, with the
parameters of its published training options. VSE-MOT degrades its test videos by this chain, frame
by frame, so it is here to compare with such figures. No camera degrades frames independently; the
kinds of `pipeline.degrade.kinds` are closer to that. The picture keeps its size.

The same (seed, index) draws the same parameters everywhere; pixels are as reproducible as SciPy's
convolution and the installed JPEG encoder.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from scipy.signal import fftconvolve
from scipy.special import j1

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Array = np.ndarray[Any, Any]

_KERNEL_SIZES = tuple(range(7, 22, 2))
_KERNELS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
_KERNEL_CHANCES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
_SINC_CHANCE = 0.1
_GENERALIZED_SHAPE, _PLATEAU_SHAPE = (0.5, 4.0), (1.0, 2.0)
_LAST_SINC_CHANCE = 0.8
_GREY_NOISE_CHANCE = 0.4
_GAUSSIAN_CHANCE = 0.5  # else Poisson
_QUALITY = (30, 95)
_FILTERS = (Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


@dataclass(frozen=True, slots=True)
class _Order:
    """Parameter ranges of one pass of the chain."""

    blur_chance: float
    sigma: tuple[float, float]
    resize_chances: tuple[float, float, float]  # larger, smaller, as it is
    resize: tuple[float, float]
    noise: tuple[float, float]
    poisson: tuple[float, float]


_FIRST = _Order(1.0, (0.2, 3.0), (0.2, 0.7, 0.1), (0.15, 1.5), (1, 30), (0.05, 3.0))
_SECOND = _Order(0.8, (0.2, 1.5), (0.3, 0.4, 0.3), (0.3, 1.2), (1, 25), (0.05, 2.5))


def second_order(frames: Pixels, seed: int, start: int = 0) -> Pixels:
    """A degraded copy of (T, H, W, 3) uint8 RGB; `start` is the first frame's index in its video.

    Windows of a video give the pixels of one call.
    """
    drawn = (np.random.default_rng([seed, start + i]) for i in range(len(frames)))
    return np.stack([_frame(frame, random) for frame, random in zip(frames, drawn, strict=True)])


def _frame(frame: Pixels, random: np.random.Generator) -> Pixels:
    height, width = frame.shape[:2]
    image = _pass(frame.astype(np.float32), _FIRST, (height, width), random)
    image = _jpeg(image, random)
    image = _pass(image, _SECOND, (height, width), random)
    last = _sinc(random) if random.random() < _LAST_SINC_CHANCE else None
    # As published, the last JPEG compression comes before or after the last filter.
    filter_first = random.random() < 0.5
    if filter_first:
        image = _convolve(_resize(image, (height, width), random), last)
        image = _jpeg(image, random)
    else:
        image = _jpeg(image, random)
        image = _convolve(_resize(image, (height, width), random), last)
    return _rounded(image)


def _pass(image: Array, order: _Order, size: tuple[int, int], random: np.random.Generator) -> Array:
    if random.random() < order.blur_chance:
        image = _convolve(image, _blur_kernel(order.sigma, random))
    change = random.choice(3, p=order.resize_chances)
    scale = 1.0
    if change == 0:
        scale = random.uniform(1, order.resize[1])
    elif change == 1:
        scale = random.uniform(order.resize[0], 1)
    image = _resize(image, (max(8, round(size[0] * scale)), max(8, round(size[1] * scale))), random)
    channels = 1 if random.random() < _GREY_NOISE_CHANCE else 3
    if random.random() < _GAUSSIAN_CHANCE:
        sigma = random.uniform(*order.noise)
        noise = random.standard_normal((*image.shape[:2], channels), np.float32) * sigma
    else:
        noise = _poisson(image, random.uniform(*order.poisson), channels, random)
    return np.clip(image + noise, 0, 255)


def _poisson(image: Array, scale: float, channels: int, random: np.random.Generator) -> Array:
    """Shot noise of a picture with as many photons as grey levels, times `scale`."""
    base = (image @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    base = np.clip(np.rint(base if channels == 1 else image), 0, 255) / 255
    photons = 2.0 ** math.ceil(math.log2(len(np.unique(base)) or 1))
    noise = random.poisson(base * photons) / photons - base
    return (255 * scale * noise).astype(np.float32)


def _blur_kernel(sigma: tuple[float, float], random: np.random.Generator) -> Array:
    if random.random() < _SINC_CHANCE:
        return _sinc(random)
    size = int(random.choice(_KERNEL_SIZES))
    kind = str(random.choice(_KERNELS, p=_KERNEL_CHANCES))
    first = random.uniform(*sigma)
    second, angle = first, 0.0
    if kind.endswith("aniso"):
        second, angle = random.uniform(*sigma), random.uniform(-math.pi, math.pi)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    inverse = np.linalg.inv(turn @ np.diag([first**2, second**2]) @ turn.T)
    place = np.stack(np.meshgrid(*2 * [np.arange(size) - size // 2]), -1).astype(float)
    distance = np.einsum("...i,ij,...j", place, inverse, place)
    if kind.startswith("plateau"):
        kernel = 1 / (distance ** random.uniform(*_PLATEAU_SHAPE) + 1)
    else:
        shape = random.uniform(*_GENERALIZED_SHAPE) if kind.startswith("generalized") else 1.0
        kernel = np.exp(-0.5 * distance**shape)
    return kernel / kernel.sum()


def _sinc(random: np.random.Generator) -> Array:
    """A circular low-pass filter; it rings as over-sharpening and compression do."""
    size = int(random.choice(_KERNEL_SIZES))
    cutoff = random.uniform(math.pi / 3 if size < 13 else math.pi / 5, math.pi)
    radius = np.hypot(*np.meshgrid(*2 * [np.arange(size) - size // 2]))
    with np.errstate(divide="ignore", invalid="ignore"):
        kernel = cutoff * j1(cutoff * radius) / (2 * math.pi * radius)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * math.pi)
    return kernel / kernel.sum()


def _convolve(image: Array, kernel: Array | None) -> Array:
    if kernel is None:
        return image
    margin = len(kernel) // 2
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    out = fftconvolve(padded, kernel.astype(np.float32)[..., None], mode="valid", axes=(0, 1))
    return np.clip(out, 0, 255)


def _resize(image: Array, size: tuple[int, int], random: np.random.Generator) -> Array:
    chosen = _FILTERS[int(random.integers(len(_FILTERS)))]
    picture = Image.fromarray(_rounded(image)).resize((size[1], size[0]), chosen)
    return np.asarray(picture).astype(np.float32)


def _jpeg(image: Array, random: np.random.Generator) -> Array:
    file = io.BytesIO()
    quality = int(random.integers(_QUALITY[0], _QUALITY[1] + 1))
    Image.fromarray(_rounded(image)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).astype(np.float32)


def _rounded(image: Array) -> Pixels:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
