"""Readings of the clock, taken in turns so that a busy machine spoils no comparison.

A machine that other work shares is slower at one time than at another. So the things that are
compared are measured in turns, several times, and a ratio is made of two readings of the same
turn. Processor time is read beside the time of the clock, because it hardly changes with the
load.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Clock = Literal["wall", "core"]
"""Time of the clock on the wall, or processor time of all threads and processes."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement.

    Attributes:
        frames: Frames that were done.
        wall_s: Seconds it took.
        core_s: Seconds of processor time it took, all threads and processes together.
        parts: Milliseconds a frame by part.
    """

    frames: int
    wall_s: float
    core_s: float
    parts: Mapping[str, float] = field(default_factory=dict)

    def rate(self, clock: Clock) -> float:
        """Frames a second, or a second of processor time."""
        return self.frames / max(self.wall_s if clock == "wall" else self.core_s, 1e-9)


@dataclass(frozen=True, slots=True)
class Spread:
    """Least, median and greatest of a few values."""

    least: float
    median: float
    greatest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """Of at least one value."""
        known = sorted(values)
        return cls(known[0], statistics.median(known), known[-1])


@dataclass(frozen=True, slots=True)
class Ratio:
    """Speed of one side in units of another's.

    Attributes:
        name: What is divided by what.
        clock: The clock of the speeds.
        spread: Over the turns.
        aim: What it should reach; None if there is no aim.
    """

    name: str
    clock: Clock
    spread: Spread
    aim: float | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """Result of one measure of the bench.

    Attributes:
        title: What was measured.
        on: Files, frames and cores it was measured on.
        readings: By side, in the order of the turns.
        ratios: Of the sides.
        facts: Other figures by name.
        skipped: Why it was not measured; "" if it was.
    """

    title: str
    on: str = ""
    readings: Mapping[str, Sequence[Reading]] = field(default_factory=dict)
    ratios: Sequence[Ratio] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    skipped: str = ""


def in_turns(
    sides: Mapping[str, Callable[[], Reading]], repeats: int, warm_up: bool = True
) -> dict[str, list[Reading]]:
    """Measure each side `repeats` times, one after the other in each turn.

    Args:
        sides: By name; each call measures once.
        repeats: Number of turns.
        warm_up: Whether a first turn is not counted, because it loads models and fills caches.
    """
    found: dict[str, list[Reading]] = {name: [] for name in sides}
    for turn in range(repeats + warm_up):
        for name, measure in sides.items():
            reading = measure()
            if turn >= warm_up:
                found[name].append(reading)
    return found


def ratio(
    readings: Mapping[str, Sequence[Reading]],
    over: str,
    under: str,
    clock: Clock,
    aim: float | None = None,
) -> Ratio:
    """Speed of one side divided by another's, of the same turn."""
    pairs = zip(readings[over], readings[under], strict=True)
    spread = Spread.of(a.rate(clock) / b.rate(clock) for a, b in pairs)
    return Ratio(f"{over} / {under}", clock, spread, aim)
