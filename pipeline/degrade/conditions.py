"""Conditions of a sequence in the benchmark: clean, degraded by a kind, or by a chain of kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.degrade.kinds import KINDS, SEVERITIES, degrade, frame_severities, sequence_seed
from pipeline.degrade.second_order import second_order

CLEAN, SECOND_ORDER = "clean", "second_order"
ALL_KINDS = (*KINDS, SECOND_ORDER)
_WORST = 6.0  # the severity of quality 0, as training has it


class ConditionError(ValueError):
    """Unknown condition; the message lists those that exist."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One way to show a sequence.

    Attributes:
        kind: "clean", one of `degrade.KINDS`, or "second_order".
        severity: 1 to 5; 0 for "clean" and for the chain, which draws its own.
        seed: number of the random draw; 0 is the benchmark's default.
    """

    kind: str = CLEAN
    severity: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in (CLEAN, *ALL_KINDS):
            known = ", ".join(ALL_KINDS)
            raise ConditionError(f"unknown degradation {self.kind!r}; known: all, none, {known}")
        steps = (0,) if self.kind in (CLEAN, SECOND_ORDER) else SEVERITIES
        if self.severity not in steps:
            raise ConditionError(f"{self.kind}: severity is {self.severity}; expected 1 to 5")

    @property
    def name(self) -> str:
        """For example "clean", "noise-3", "second_order"."""
        return f"{self.kind}-{self.severity}" if self.severity else self.kind

    @property
    def drawn(self) -> bool:
        """Whether another seed gives other pixels."""
        return self.kind not in (CLEAN, "codec")

    def seed_for(self, sequence: str) -> int:
        """The seed of a sequence's degradation."""
        name = f"{sequence}#{self.seed}" if self.seed else sequence
        return sequence_seed(name, self.kind, self.severity)

    def degrade(self, frames: np.ndarray[Any, Any], sequence: str, start: int) -> Any:
        """Degrade frames (T, H, W, 3) uint8 RGB; not for codec, which needs the whole clip."""
        if self.kind == CLEAN:
            return frames
        if self.kind == SECOND_ORDER:
            return second_order(frames, self.seed_for(sequence), start)
        if self.kind == "codec":
            raise ConditionError("codec: a re-encode needs the whole clip; see sequence_frames")
        return degrade(frames, self.kind, self.severity, self.seed_for(sequence), start)

    def true_quality(self, sequence: str, start: int, count: int) -> np.ndarray[Any, Any] | None:
        """Quality by the known severity, (count,) in [0, 1]; None if no severity is known."""
        if self.kind == SECOND_ORDER:
            return None
        if self.kind == CLEAN:
            return np.ones(count)
        seed = self.seed_for(sequence)
        return 1 - frame_severities(self.kind, self.severity, seed, count, start) / _WORST


def conditions(
    kinds: Sequence[str], severities: Sequence[int], seeds: Sequence[int]
) -> list[Condition]:
    """Clean first, then every kind at every severity; each with every seed.

    `kinds`: of `ALL_KINDS`; ["all"] means all of them, ["none"] or [] clean alone.
    """
    named = [kind for kind in kinds if kind != "none"]
    named = list(ALL_KINDS) if named == ["all"] else named
    shown = [(CLEAN, 0)]
    for kind in named:
        shown += [(kind, s) for s in ((0,) if kind == SECOND_ORDER else severities)]
    return [Condition(kind, severity, seed) for kind, severity in shown for seed in seeds]
