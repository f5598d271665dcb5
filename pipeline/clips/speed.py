"""Measures the speed of making training clips on one core, and the share of each part."""

import cProfile
import pstats
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.clips import recolour, spoil, views
from pipeline.clips.clips import Clips, collate_clips
from pipeline.clips.frame_store import FrameStore

_PARTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "decoding": (FrameStore.picture,),
    "cutting views": (views.cut,),
    "colours": (recolour.recolour, recolour.without_colour),
    "degrading": (spoil.spoil, Clips._degrade),
    "to tensors": (Clips._pack,),
}
"""Functions of each part; none of them calls another one of these."""
REST = "draws, labels, pasting"


@dataclass(frozen=True, slots=True)
class ClipSpeed:
    """Time of an item on one core.

    Attributes:
        first: milliseconds the first time, with decoding of all pictures.
        again: milliseconds with as many pictures in memory as allowed.
        collate: milliseconds of making a batch, per item.
        shares: of the time in `again`, by part; their sum is 1.
    """

    first: float
    again: float
    collate: float
    shares: dict[str, float]


def measure_clips(clips: Clips, items: int, batch: int) -> ClipSpeed:
    """Make the first items of a stream, and make them again.

    Args:
        clips: the stream, not used before.
        items: how many, at least 1.
        batch: items a batch.
    """
    first = _milliseconds(lambda: [clips[i] for i in range(items)])
    again = _milliseconds(lambda: [clips[i] for i in range(items)])
    some = [clips[i] for i in range(batch)]
    collate = _milliseconds(lambda: [collate_clips(some) for _ in range(10)])
    profile = cProfile.Profile()
    profile.runcall(lambda: [clips[i] for i in range(items)])
    shares = _shares(pstats.Stats(profile))
    return ClipSpeed(first / items, again / items, collate / (10 * batch), shares)


def _milliseconds(work: Callable[[], object]) -> float:
    """Processor time of a call in this process."""
    start = time.process_time()
    work()
    return 1e3 * (time.process_time() - start)


def _shares(stats: pstats.Stats) -> dict[str, float]:
    entries: dict[tuple[str, int, str], tuple[Any, ...]] = stats.stats  # type: ignore[attr-defined]
    total: float = stats.total_tt  # type: ignore[attr-defined]
    shares = {}
    for part, functions in _PARTS.items():
        codes = [f.__code__ for f in functions]
        keys = [(c.co_filename, c.co_firstlineno, c.co_name) for c in codes]
        # The fourth number of an entry is the time in the function and in what it calls.
        shares[part] = sum(entries[key][3] for key in keys if key in entries) / total
    shares[REST] = 1 - sum(shares.values())
    return shares
