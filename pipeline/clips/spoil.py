"""Degradations of training clips at the size of the canvas: one kind, or several at once.

Several at once are applied in the order of their cause, from air to recorder. The level of each
swings over time.
"""

import math
from collections.abc import Sequence

import numpy as np

from pipeline.clips.draws import log_uniform
from pipeline.clips.fast_kernels import JPEG, fast_degrade
from pipeline.degrade.kinds import character_of

_CHAIN = ("haze", "blur", "low_light", "noise", "low_resolution", JPEG)
_BLURS = ("defocus", "motion_blur")
_SEVERAL = (2, 4)
_PEAK = (0.8, 3.6)  # greatest level of each of several
_PERIOD = (8.0, 120.0)  # frames of a swing
_LONG = 200  # frames; a clip starts anywhere in a video of this length

_Levels = dict[str, np.ndarray]
"""Kinds in the order they are applied, and the level (T,) of each in each frame."""


def spoil(
    clip: Sequence[np.ndarray],
    kinds: Sequence[str],
    several: float,
    random: np.random.Generator,
) -> list[np.ndarray]:
    """Return a degraded copy of a clip.

    Args:
        clip: T frames (h, w, 3) uint8.
        kinds: of PORTABLE_KINDS; JPEG is drawn as well.
        several: share of clips with several kinds at once.
        random: source of the draws.
    """
    character, start = character_of(int(random.integers(2**31))), int(random.integers(_LONG))
    frames = start + np.arange(len(clip))
    if random.random() < several:
        levels = _chain(frames, int(random.integers(_SEVERAL[0], _SEVERAL[1] + 1)), random)
    else:
        levels = _one(kinds, frames, random)
    spoiled = []
    for t, frame in enumerate(clip):
        for kind, level in levels.items():
            frame = fast_degrade(frame, kind, float(level[t]), character, start + t)
        spoiled.append(frame)
    return spoiled


def _one(kinds: Sequence[str], frames: np.ndarray, random: np.random.Generator) -> _Levels:
    options = (*kinds, JPEG)
    kind = options[random.integers(len(options))]
    if kind == "swing":
        return _chain(frames, 2, random)
    return {kind: np.full(len(frames), float(random.integers(1, 6)))}


def _chain(frames: np.ndarray, count: int, random: np.random.Generator) -> _Levels:
    """Several kinds in the order of their cause; at most one of them is a blur."""
    levels = {}
    for place in sorted(random.choice(len(_CHAIN), count, replace=False)):
        kind = _CHAIN[place]
        if kind == "blur":
            kind = _BLURS[random.integers(len(_BLURS))]
        period = log_uniform(random, *_PERIOD)
        swing = np.sin(2 * math.pi * (frames / period + random.random()))
        levels[kind] = random.uniform(*_PEAK) * (0.5 + 0.5 * swing)
    return levels
