"""Ablations of a trained student: the same weights with one thing changed.

| variant | what is different |
|---|---|
| `gate_off` | the semantic weight is 0 everywhere: nothing semantic is fused or attended to |
| `gate_constant` | the gate gets quality 1/2 for all pictures |
| `gate_random` | the gate gets a quality drawn for each frame from [0, 1] |
| `gate_oracle` | the gate gets the quality of the known severity: 1 - severity / 6 |
| `no_semantics` | maps stay visual and semantic attention adds nothing; the gate still decides \
how much is written into the tracks' long-term memory |

The changes begin after `Tracker.perceive`, so all variants of a student share one percept.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.net.decoder import Decoder, DecoderOutput, Queries
from model.net.fusion import SemanticGate
from model.track.frames import Percept
from model.track.tracker import Tracker
from pipeline.degrade.conditions import Condition

FULL = "full"
VARIANTS = (FULL, "gate_off", "gate_constant", "gate_random", "gate_oracle", "no_semantics")
RANDOM = "gate_random"
_DECODERS = ("detection_decoder", "track_decoder")

Quality = Callable[[str, int, int], np.ndarray[Any, Any] | None]
"""Of a sequence's frames: (sequence, first frame, how many) to (count,) in [0, 1]."""


class ClosedGate(SemanticGate):
    """A gate whose weight is 0, whatever the quality."""

    def forward(self, quality: Tensor, query: Tensor | None = None) -> Tensor:
        """As `SemanticGate.forward`."""
        return torch.zeros_like(quality if query is None else query[..., 0])


class VisualFusion(nn.Module):
    """A fusion that leaves the visual maps as they are."""

    def forward(self, visual: Sequence[Tensor], semantic: Tensor, weight: Tensor) -> list[Tensor]:
        """As `SemanticFusion.forward`."""
        return list(visual)


class VisualDecoder(nn.Module):
    """A decoder whose queries give semantics the weight 0."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(
        self,
        queries: Queries,
        maps: Sequence[Tensor],
        semantic: Tensor,
        detections: DecoderOutput | None = None,
    ) -> DecoderOutput:
        """As `Decoder.forward`."""
        unweighted = replace(queries, semantic_weight=torch.zeros_like(queries.semantic_weight))
        return self.decoder(unweighted, maps, semantic, detections)


@dataclass(frozen=True, slots=True)
class Variant:
    """A student with one thing changed.

    Attributes:
        name: one of `VARIANTS`.
        tracker: detects and tracks; shares its weights with the student.
        quality: replaces the measured quality; None keeps it.
    """

    name: str
    tracker: Tracker
    quality: Quality | None = None

    def percept(self, percept: Percept, sequence: str, start: int) -> Percept:
        """Return the percept with the quality that this variant gets.

        Args:
            percept: of consecutive frames, by the student.
            sequence: the frames' sequence.
            start: index of the first of them.
        """
        if self.quality is None:
            return percept
        quality = self.quality(sequence, start, len(percept.quality))
        assert quality is not None
        values = torch.from_numpy(np.asarray(quality, np.float32)).to(percept.quality)
        return replace(percept, quality=values)


def variant_exists(name: str, condition: Condition) -> bool:
    """Return False for the oracle where no severity is known, else True."""
    return name != "gate_oracle" or condition.true_quality("", 0, 1) is not None


def make_variants(
    tracker: Tracker, names: Sequence[str], condition: Condition
) -> tuple[Variant, ...]:
    """Make variants of a student, which is left as it is.

    Args:
        tracker: the student.
        names: out of `VARIANTS`.
        condition: of the frames; `gate_random` and `gate_oracle` depend on it.
    """
    return tuple(_variant(tracker, name, condition) for name in names)


def _variant(tracker: Tracker, name: str, condition: Condition) -> Variant:
    if name == FULL:
        return Variant(name, tracker)
    if name == "gate_off":
        gate = ClosedGate(tracker.config.dim).to(tracker.gate.bias.device)
        return Variant(name, _with_parts(tracker, gate=gate))
    if name == "no_semantics":
        parts = {d: VisualDecoder(getattr(tracker, d)) for d in _DECODERS}
        return Variant(name, _with_parts(tracker, fusion=VisualFusion(), **parts))
    qualities: dict[str, Quality] = {
        "gate_constant": lambda sequence, start, count: np.full(count, 0.5),
        "gate_oracle": condition.true_quality,
        RANDOM: lambda sequence, start, count: _random_quality(condition, sequence, start, count),
    }
    return Variant(name, tracker, qualities[name])


def _with_parts(tracker: Tracker, **parts: nn.Module) -> Tracker:
    """A tracker with these parts in place of its own; it shares all others with `tracker`."""
    shared = {id(module): module for module in tracker.children()}
    changed = copy.deepcopy(tracker, shared)
    for name, part in parts.items():
        setattr(changed, name, part)
    return changed


def _random_quality(
    condition: Condition, sequence: str, start: int, count: int
) -> np.ndarray[Any, Any]:
    seed = condition.seed_for(sequence)
    return np.array(
        [np.random.default_rng([seed, i]).random() for i in range(start, start + count)]
    )
