"""Degradations of clean footage, as by poor cameras and recorders.

Eight kinds, five severities each, from slight (1) to barely usable for a person detector (5).
A degradation belongs to a clip. Its character (direction of the blur, colour of the noise, tint of
the haze, …) is drawn once from the seed and drifts slowly at most, as in a real camera. Only the
sensor noise is drawn anew for every frame.

The same seed gives the same pixels on any machine. Random bits come from the raw PCG64 stream, the
part of NumPy's generator whose output never changes. Arithmetic on pixels is integer, and filters
are Pillow's fixed-point ones. `codec` is as reproducible as the installed PyAV's encoder.

Blur lengths are given for a 640x384 picture and scale with the size of the frame.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from PIL import Image, ImageFilter

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
_T = TypeVar("_T")

SEVERITIES = (1, 2, 3, 4, 5)
_REFERENCE_AREA = 640 * 384

# Strength at levels 0 (clean) … 5; interpolated at levels in between, which a swing has.
_NOISE_SIGMA = (0.0, 8.0, 16.0, 28.0, 44.0, 66.0)
_MOTION_LENGTH = (0.0, 5.0, 10.0, 17.0, 26.0, 38.0)
DEFOCUS_RADIUS = (0.0, 1.0, 2.0, 3.4, 5.4, 8.0)
_EXPOSURE = (1.0, 0.7, 0.46, 0.3, 0.19, 0.12)
_DARK_SIGMA = (0.0, 1.5, 2.5, 3.5, 4.5, 5.5)
SHRINK = (1.0, 1.6, 2.4, 3.6, 5.2, 7.5)
TRANSMISSION = (1.0, 0.72, 0.52, 0.36, 0.23, 0.13)
_HAZE_SIGMA = (0.0, 0.5, 0.9, 1.2, 1.5, 1.8)

# Normal quantiles for one random byte, standard deviation 16, as a table of int8.
_NORMAL = np.array(
    [round(16 * NormalDist().inv_cdf((i + 0.5) / 256)) for i in range(256)], dtype=np.int8
).tobytes()


class DegradeError(ValueError):
    """Unknown degradation, or frames of the wrong type or shape; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Character:
    """Parameters that are drawn once for a clip, for all kinds."""

    seed: int
    monochrome: bool  # noise alike in the three channels, as from an infrared camera
    coarse: bool  # grain of two pixels, as after demosaicing
    shot: float  # share of the noise that grows with the signal
    angle: float  # direction of the motion blur, radians
    tint: tuple[float, float, float]  # colour cast of the dark picture
    airlight: tuple[int, int, int]
    shrink_filter: Image.Resampling
    enlarge_filter: Image.Resampling
    period: float  # frames of one slow drift
    phase: float
    pair: tuple[str, str]  # the two kinds of a swing

    def drift(self, index: int) -> float:
        """The slow drift in [-1, 1] at a frame."""
        return math.sin(2 * math.pi * (index / self.period + self.phase))


def character_of(seed: int) -> Character:
    """The character that a seed ≥ 0 draws for a clip."""
    draws = iter(np.random.PCG64(seed).random_raw(32).tolist())

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * ((next(draws) >> 11) * 2.0**-53)

    def one_of(options: tuple[_T, ...]) -> _T:
        return options[next(draws) % len(options)]

    grey = uniform(200, 240)
    first = one_of(_SWINGING)
    return Character(
        seed=seed,
        monochrome=one_of((True, False, False)),
        coarse=one_of((True, False)),
        shot=uniform(0.2, 0.8),
        angle=uniform(0, math.pi),
        tint=(uniform(0.8, 1.1), uniform(0.9, 1.05), uniform(0.8, 1.1)),
        airlight=(round(grey), round(grey + uniform(-4, 4)), round(grey + uniform(-8, 14))),
        shrink_filter=one_of((Image.Resampling.BOX, Image.Resampling.BILINEAR)),
        enlarge_filter=one_of((Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)),
        period=uniform(60, 160),
        phase=uniform(0, 1),
        pair=(first, one_of(tuple(kind for kind in _SWINGING if kind != first))),
    )


def sequence_seed(sequence: str, kind: str, severity: int) -> int:
    """The seed of one benchmark cell: a sequence under one kind at one severity."""
    digest = hashlib.sha256(f"{sequence}\0{kind}\0{severity}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def degrade(frames: Pixels, kind: str, severity: int, seed: int, start: int = 0) -> Pixels:
    """Return a degraded copy of a clip.

    A long video can be degraded in windows: all kinds but `codec`, which starts a new stream in
    each call, give the same pixels as in one call.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        kind: one of KINDS.
        severity: 1 … 5.
        seed: ≥ 0, of all draws.
        start: index of the clip's first frame in its video.

    Raises:
        DegradeError: an argument is none of these, or `codec` without PyAV.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise DegradeError(
            f"degrade: frames are {frames.dtype} {frames.shape}; expected uint8 (T, H, W, 3), "
            "none of them 0"
        )
    _check(kind, severity)
    if kind == "codec":
        return _codec(frames, severity)
    character = character_of(seed)
    out = np.empty_like(frames)
    levels = frame_severities(kind, severity, seed, len(frames), start)
    for i, (frame, level) in enumerate(zip(frames, levels, strict=True)):
        out[i] = _KERNELS[kind](frame, float(level), character, start + i)
    return out


def degrade_frame(
    frame: Pixels, kind: str, level: float, character: Character, index: int
) -> Pixels:
    """Degrade one frame by one kind at any level, with the pixels of `degrade`.

    Args:
        frame: (H, W, 3) uint8 RGB.
        kind: one of PORTABLE_KINDS.
        level: 0 (clean) … 5.
        character: of the clip.
        index: of the frame in its video.
    """
    return _KERNELS[kind](frame, level, character, index)


def frame_severities(
    kind: str, severity: int, seed: int, count: int, start: int = 0
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Severity of each of `count` frames, (count,) in [0, 5]; constant but for `swing`."""
    _check(kind, severity)
    if kind != "swing":
        return np.full(count, float(severity))
    character = character_of(seed)
    return np.array([severity * (0.5 + 0.5 * character.drift(start + i)) for i in range(count)])


def _check(kind: str, severity: int) -> None:
    if kind not in KINDS:
        raise DegradeError(f"degrade: unknown kind {kind!r}; known: {', '.join(KINDS)}")
    if severity not in SEVERITIES:
        raise DegradeError(f"degrade: severity is {severity!r}; expected 1, 2, 3, 4 or 5")


def strength(table: tuple[float, ...], level: float) -> float:
    """The value of a table of strengths at a level in [0, 5]."""
    return float(np.interp(level, range(len(table)), table))


def size_factor(frame: Pixels) -> float:
    """Factor of blur lengths in this picture, relative to a 640x384 one."""
    return math.sqrt(frame.shape[0] * frame.shape[1] / _REFERENCE_AREA)


def random_bytes(seed: int, index: int, count: int) -> Pixels:
    """Random bytes (count,) for a frame of a clip, the same on any machine."""
    stream = np.random.PCG64(np.random.SeedSequence((seed, index)))
    return stream.random_raw(-(-count // 8)).astype("<u8").view(np.uint8)[:count]


def _add_noise(
    frame: Pixels, sigma: float, shot: float, character: Character, index: int
) -> Pixels:
    """Sensor noise of standard deviation `sigma` at mid-grey, its share `shot` signal-dependent."""
    if sigma < 0.25:
        return frame
    height, width = frame.shape[:2]
    channels, margin = (1 if character.monochrome else 3), int(character.coarse)
    shape = (height + margin, width + margin, channels)
    drawn = random_bytes(character.seed, index, math.prod(shape)).tobytes().translate(_NORMAL)
    grain = np.frombuffer(drawn, dtype=np.int8).reshape(shape).astype(np.int16)
    if character.coarse:
        rows = grain[1:] + grain[:-1]
        grain = (rows[:, 1:] + rows[:, :-1]) >> 1
    if character.monochrome:
        grain = np.repeat(grain, 3, axis=2)
    gains = sigma * np.sqrt((1 - shot) + shot * np.arange(256) / 128)
    # The finest steps of gain for which gain times grain (at most 255 * 92) stays within int16.
    bits = math.floor(math.log2(255 / max(gains.max(), 1.0)))
    steps = np.minimum(np.rint(gains * 2**bits), 255).astype(np.uint8)
    grain *= _look_up(frame, steps) if shot else np.int16(steps[0])
    grain += 1 << (bits + 3)
    grain >>= bits + 4
    grain += frame
    return np.clip(grain, 0, 255, out=grain).astype(np.uint8)


def _look_up(frame: Pixels, table: Pixels) -> Pixels:
    """table[frame]; bytes.translate is several times faster than NumPy's indexing."""
    found = frame.tobytes().translate(table.tobytes())
    return np.frombuffer(found, dtype=np.uint8).reshape(frame.shape)


def _noise(frame: Pixels, level: float, character: Character, index: int) -> Pixels:
    return _add_noise(frame, strength(_NOISE_SIGMA, level), character.shot, character, index)


def _motion_blur(frame: Pixels, level: float, character: Character, index: int) -> Pixels:
    shake = character.drift(4 * index)
    length = strength(_MOTION_LENGTH, level) * size_factor(frame) * (0.85 + 0.15 * shake)
    taps = 2 * round(length / 2) + 1  # odd, so the blur is centred and moves nothing
    if taps == 1:
        return frame
    angle = character.angle + 0.3 * character.drift(index)
    along = [(i / (taps - 1) - 0.5) * length for i in range(taps)]
    offsets = [(round(a * math.sin(angle)), round(a * math.cos(angle))) for a in along]
    pad_y, pad_x = (max(abs(o[axis]) for o in offsets) for axis in (0, 1))
    padded = np.pad(frame, ((pad_y, pad_y), (pad_x, pad_x), (0, 0)), mode="edge")
    height, width = frame.shape[:2]
    total: Any = np.full(frame.shape, taps // 2, dtype=np.uint32 if taps > 256 else np.uint16)
    for dy, dx in offsets:
        total += padded[pad_y + dy : pad_y + dy + height, pad_x + dx : pad_x + dx + width]
    return (total // taps).astype(np.uint8)


def _defocus(frame: Pixels, level: float, character: Character, index: int) -> Pixels:
    # Focus drifts a little. Two boxes of unequal size approximate the disc of a real lens.
    hunting = 1 + 0.1 * character.drift(index)
    radius = strength(DEFOCUS_RADIUS, level) * size_factor(frame) * hunting
    picture = Image.fromarray(frame).filter(ImageFilter.BoxBlur(radius))
    return np.asarray(picture.filter(ImageFilter.BoxBlur(0.5 * radius)))


def _low_light(frame: Pixels, level: float, character: Character, index: int) -> Pixels:
    exposure = strength(_EXPOSURE, level) * (1 + 0.08 * character.drift(index) * min(level, 1.0))
    cast = min(level, 1.0)
    value = np.arange(256) / 255
    curves = []
    for tint in character.tint:
        gain = 255 * min(exposure, 1.0) * (1 + (tint - 1) * cast)
        curve = np.minimum(gain * (0.75 * value + 0.25 * value**2), 255)
        curves += np.rint(cast * curve + (1 - cast) * 255 * value).astype(int).tolist()
    dark = np.asarray(Image.fromarray(frame).point(curves))
    return _add_noise(dark, strength(_DARK_SIGMA, level), 0.0, character, index)


def _low_resolution(frame: Pixels, level: float, character: Character, index: int) -> Pixels:
    height, width = frame.shape[:2]
    factor = strength(SHRINK, level)
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    if small == (width, height):
        return frame
    picture = Image.fromarray(frame).resize(small, character.shrink_filter)
    return np.asarray(picture.resize((width, height), character.enlarge_filter))


def _haze(frame: Pixels, level: float, character: Character, index: int) -> Pixels:
    height, width = frame.shape[:2]
    # Depth: far at the top, near at the bottom, in patches that drift sideways.
    patches = random_bytes(character.seed, -1 & 0xFFFFFFFF, 60).reshape(5, 12)
    field = np.asarray(
        Image.fromarray(patches).resize((2 * width, height), Image.Resampling.BILINEAR)
    )
    left = round(width * (0.5 + 0.5 * character.drift(index)))
    rows = (160 - 96 * np.arange(height) // height).astype(np.uint8)
    depth = rows[:, None] + (field[:, left : left + width] >> 2) - 32
    transmission = strength(TRANSMISSION, level)
    curve = np.rint(256 * transmission ** (np.arange(256) / 112)).astype(np.uint16)
    # Rows of 3 * width numbers: NumPy is slow where the innermost axis has length 3.
    clear = np.repeat(curve[depth], 3, axis=1)
    air = np.tile(np.array(character.airlight, dtype=np.uint16), width)
    hazy = ((frame.reshape(height, -1) * clear + air * (256 - clear)) >> 8).astype(np.uint8)
    return _add_noise(
        hazy.reshape(frame.shape), strength(_HAZE_SIGMA, level), 0.0, character, index
    )


def _swing(frame: Pixels, level: float, character: Character, index: int) -> Pixels:
    first, second = sorted(character.pair, key=_SWINGING.index)
    share = {character.pair[0]: 1.0, character.pair[1]: 0.6}
    once = _KERNELS[first](frame, level * share[first], character, index)
    return _KERNELS[second](once, level * share[second], character, index)


def _codec(frames: Pixels, severity: int) -> Pixels:
    try:
        import av  # noqa: F401  # checked alone: the module below may be imported already

        from pipeline.degrade.codec import read_video, write_video
    except ImportError as error:
        raise DegradeError(
            "degrade: kind 'codec' re-encodes video and needs PyAV; pip install av, or leave "
            "'codec' out (PORTABLE_KINDS need nothing)"
        ) from error
    file = io.BytesIO()
    write_video(frames, severity, file)
    file.seek(0)
    return np.stack(list(read_video(file, *frames.shape[1:3])))


_Kernel = Callable[[Pixels, float, Character, int], Pixels]
_KERNELS: dict[str, _Kernel] = {
    "noise": _noise,
    "motion_blur": _motion_blur,
    "defocus": _defocus,
    "low_light": _low_light,
    "low_resolution": _low_resolution,
    "haze": _haze,
    "swing": _swing,
}
# In the order of their cause: air, lens, sensor, recorder.
_SWINGING = ("haze", "defocus", "low_light", "noise", "low_resolution")

Kind = Literal[
    "noise", "motion_blur", "defocus", "low_light", "low_resolution", "codec", "haze", "swing"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
PORTABLE_KINDS: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind in _KERNELS)
"""Kinds that need only NumPy and Pillow, and give the same pixels on any machine."""
