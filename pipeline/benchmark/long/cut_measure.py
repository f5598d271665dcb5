"""How well shot cuts are found: none within a sequence, all between sequences.

Sequences are shown clean, degraded, and under light that changes at once. Then stretches of them
are strung together, so that it is known where the cuts are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Items
from itertools import islice
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from pipeline.datasets.mot import Sequence
from pipeline.degrade.conditions import CLEAN, Condition
from pipeline.degrade.kinds import degrade
from pipeline.storage.files import list_videos
from pipeline.video.cuts import Cells, CutDetector, cells_of
from pipeline.video.decode import iterate_frames
from pipeline.video.probe import probe

Row = dict[str, Any]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]

FLASH, LIGHTS, MIXED = "flash", "lights", "mixed"
_PERIOD = 10  # frames between two flashes, and between switches of the lights
_FLASH_GAIN, _DARK_GAIN = 2.5, 0.3

_STRINGS, _SHOTS = 60, 12  # strings of stretches for each condition, and stretches of each
_SHOT_FRAMES = 5, 40  # least and greatest number of frames of a stretch


def cells_of_sequence(
    sequence: Sequence, conditions: Items[Condition], frames: int
) -> Iterator[tuple[str, Cells]]:
    """What the detector sees of a sequence under each condition: name, and (N, 24, 40) cells.

    Clean frames are all given; of the others, and under flashes and lights, only the first ones.

    Args:
        sequence: Of a video file.
        conditions: Clean must be among them.
        frames: Frames that are degraded.

    Raises:
        ProbeError, DecodeError, StorageError: The video cannot be read.
    """
    info = probe(next(list_videos(str(sequence.video))))
    pictures = (pixels for _, _, pixels in iterate_frames(info))
    first = np.stack(list(islice(pictures, frames)))
    yield CLEAN, np.concatenate([_cells(first), *(_cells(p[None]) for p in pictures)])
    yield FLASH, _cells(_flashes(first))
    yield LIGHTS, _cells(_lights(first))
    for condition in conditions:
        if condition.kind == "codec":
            seed = condition.seed_for(sequence.name)
            yield condition.name, _cells(degrade(first, "codec", condition.severity, seed))
        elif condition.kind != CLEAN:
            poor = (condition.degrade(p[None], sequence.name, i) for i, p in enumerate(first))
            yield condition.name, np.concatenate([_cells(p) for p in poor])


def sequence_row(name: str, condition: str, cells: Cells) -> Row:
    """Count the cuts that are found in one shot, all of them wrong."""
    return _row(name, condition, cells, [])


def joined_row(condition: str, shown: Mapping[str, Items[Cells]], seed: int = 0) -> Row:
    """Count the cuts that are found, and those that are not, in strings of stretches.

    Args:
        condition: Name of the row.
        shown: Cells of each sequence, at least two, under one condition or several.
        seed: Draws the stretches.
    """
    draw = np.random.default_rng(seed)
    names = sorted(shown)
    total: Row = {}
    for _ in range(_STRINGS):
        parts: list[Cells] = []
        last = -1
        for _ in range(_SHOTS):
            # Another sequence than the last one.
            last = int(draw.integers(len(names) - (last >= 0)) + last + 1) % len(names)
            options = shown[names[last]]
            cells = options[int(draw.integers(len(options)))]
            length = min(len(cells), int(draw.integers(*_SHOT_FRAMES, endpoint=True)))
            start = int(draw.integers(len(cells) - length + 1))
            parts.append(cells[start : start + length])
        true = np.cumsum([len(part) for part in parts])[:-1].tolist()
        row = _row("joined", condition, np.concatenate(parts), true)
        counts = ("frames", "cuts", "found", "wrong")
        total = row | {name: row[name] + total.get(name, 0) for name in counts}
    return total


def _row(sequence: str, condition: str, cells: Cells, true: Items[int]) -> Row:
    detector = CutDetector()
    found = {number for number, frame in enumerate(cells) if detector.begins_shot(frame)}
    return {
        "sequence": sequence,
        "condition": condition,
        "frames": len(cells),
        "cuts": len(true),
        "found": len(found & set(true)),
        "wrong": len(found - set(true)),
    }


def _cells(pictures: Pixels) -> Cells:
    scaler = VideoReformatter()
    return np.stack(
        [
            cells_of(VideoFrame.from_ndarray(np.ascontiguousarray(p), format="rgb24"), scaler)
            for p in pictures
        ]
    )


def _flashes(pictures: Pixels) -> Pixels:
    """A flash in every tenth frame; every second one hits the upper half of the picture alone."""
    lit = pictures.copy()
    for number in range(_PERIOD, len(lit), _PERIOD):
        half = lit.shape[1] // (1 + number // _PERIOD % 2)
        lit[number, :half] = _times(lit[number, :half], _FLASH_GAIN)
    return lit


def _lights(pictures: Pixels) -> Pixels:
    """Lights that go out, and on again, every tenth frame."""
    dark = pictures.copy()
    for number in range(len(dark)):
        if number // _PERIOD % 2:
            dark[number] = _times(dark[number], _DARK_GAIN)
    return dark


def _times(pixels: Pixels, gain: float) -> Pixels:
    return (pixels * np.float32(gain)).clip(0, 255).astype(np.uint8)
