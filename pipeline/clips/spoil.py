"""Degradations of training clips at the size of the canvas: one kind, or several at once.

Several at once come in the order light meets them, each with a level that swings over time, as
when a camera in fog hunts for focus at dusk and its recorder saves bits.
"""

import math
from collections.abc import Sequence

import numpy as np

from pipeline.clips.draws import log_uniform
from pipeline.clips.fast_kernels import JPEG, fast_degrade
from pipeline.degrade.kinds import look_of

_CHAIN = ("haze", "blur", "low_light", "noise", "low_resolution", JPEG)
_BLURS = ("defocus", "motion_blur")
_SEVERAL = (2, 4)
_PEAK = (0.8, 3.6)  # level of one of several at its worst
_PERIOD = (8.0, 120.0)  # frames of a swing
_LONG = 200  # frames: clips lie anywhere in a video this long

_Levels = dict[str, np.ndarray]
"""Kinds in the order they are applied, and the level (T,) of each in each frame."""


def spoil(
    clip: Sequence[np.ndarray],
    kinds: Sequence[str],
    several: float,
    random: np.random.Generator,
) -> list[np.ndarray]:
    """A degraded copy of a clip.

    Args:
        clip: T frames (h, w, 3) uint8.
        kinds: of PORTABLE_KINDS; JPEG is drawn beside them.
        several: share of clips that get several kinds at once.
        random: what draws.
    """
    look, start = look_of(int(random.integers(2**31))), int(random.integers(_LONG))
    frames = start + np.arange(len(clip))
    if random.random() < several:
        levels = _chain(frames, int(random.integers(_SEVERAL[0], _SEVERAL[1] + 1)), random)
    else:
        levels = _one(kinds, frames, random)
    spoiled = []
    for t, frame in enumerate(clip):
        for kind, level in levels.items():
            frame = fast_degrade(frame, kind, float(level[t]), look, start + t)
        spoiled.append(frame)
    return spoiled


def _one(kinds: Sequence[str], frames: np.ndarray, random: np.random.Generator) -> _Levels:
    options = (*kinds, JPEG)
    kind = options[random.integers(len(options))]
    if kind == "swing":
        return _chain(frames, 2, random)
    return {kind: np.full(len(frames), float(random.integers(1, 6)))}


def _chain(frames: np.ndarray, count: int, random: np.random.Generator) -> _Levels:
    """Several kinds in the order of light; at most one of them is a blur of the lens."""
    levels = {}
    for place in sorted(random.choice(len(_CHAIN), count, replace=False)):
        kind = _CHAIN[place]
        if kind == "blur":
            kind = _BLURS[random.integers(len(_BLURS))]
        period = log_uniform(random, *_PERIOD)
        swing = np.sin(2 * math.pi * (frames / period + random.random()))
        levels[kind] = random.uniform(*_PEAK) * (0.5 + 0.5 * swing)
    return levels
