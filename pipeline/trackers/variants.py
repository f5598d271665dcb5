"""Ablations of a trained student: the same weights with one module replaced.

| variant | what is different |
|---|---|
| `gate_off` | the semantic weight is 0 everywhere: nothing semantic is fused or attended to |
| `gate_constant` | the gate is told quality 1/2 whatever the picture |
| `gate_random` | the gate is told a quality drawn for each frame from [0, 1] |
| `gate_oracle` | the gate is told the true severity, as training had it: 1 - severity / 6 |
| `no_semantics` | memory stays visual and semantic attention says nothing; the gate still decides \
what long memory is written with |

Variants of one student run side by side over a window: what none of them changes (backbone,
encoder, semantic branch) is computed by the first and reused by the others.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.net.fusion import SemanticGate
from model.track.tracker import Tracker
from pipeline.degrade.conditions import Condition

FULL = "full"
VARIANTS = (FULL, "gate_off", "gate_constant", "gate_random", "gate_oracle", "no_semantics")
RANDOM = "gate_random"
_SHARED = ("backbone", "encoder", "semantics", "quality")
_REWRITTEN = {"no_semantics": ("detection_decoder", "track_decoder")}  # inside, not as a whole

Quality = Callable[[str, int, int], np.ndarray[Any, Any] | None]
"""Of a sequence's frames: (sequence, first frame, how many) to (count,) in [0, 1]."""


class Shared(nn.Module):
    """A module whose output several trackers need: computed once a window, then replayed."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.seconds = 0.0  # what computing this window's output took
        self._output: Any = None

    def forget(self) -> None:
        """Start a new window."""
        self._output, self.seconds = None, 0.0

    def __getattr__(self, name: str) -> Any:
        """Attributes of the module inside, such as the backbone's channels."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)

    def forward(self, *inputs: Any) -> Any:
        """The module's output for the first inputs of the window."""
        if self._output is None:
            started = time.perf_counter()
            self._output = self.module(*inputs)
            self.seconds = time.perf_counter() - started
        return self._output


class FedQuality(nn.Module):
    """Says what it was told instead of looking."""

    def __init__(self) -> None:
        super().__init__()
        self.told: Tensor | None = None

    def forward(self, early: Tensor, valid: Tensor, statistics: Tensor) -> Tensor:
        """The quality of each frame, (N,)."""
        assert self.told is not None and len(self.told) == len(statistics)
        return self.told.to(statistics)


class ClosedGate(SemanticGate):
    """Weight 0, whatever the quality."""

    def forward(self, quality: Tensor, query: Tensor | None = None) -> Tensor:
        """As `SemanticGate.forward`."""
        return torch.zeros_like(quality if query is None else query[..., 0])


class _VisualFusion(nn.Module):
    def forward(self, visual: Sequence[Tensor], semantic: Tensor, weight: Tensor) -> list[Tensor]:
        return list(visual)


class _Silence(nn.Module):
    def forward(self, query: Tensor, boxes: Tensor, maps: Sequence[Tensor]) -> Tensor:
        return torch.zeros_like(query)


@dataclass(frozen=True, slots=True)
class Variant:
    """One tracker of a set, and how to tell it the quality of frames where it does not look."""

    name: str
    tracker: Tracker
    quality: Quality | None

    def prepare(self, sequence: str, start: int, count: int) -> None:
        """Before a window is encoded."""
        if self.quality is not None:
            told = self.quality(sequence, start, count)
            assert told is not None
            self.tracker.quality.told = torch.from_numpy(np.asarray(told, np.float32))


@dataclass(frozen=True, slots=True)
class VariantSet:
    """Variants of one student that encode a window together."""

    variants: tuple[Variant, ...]
    shared: tuple[Shared, ...]

    def new_window(self) -> None:
        """Forget what was shared of the last one."""
        for module in self.shared:
            module.forget()

    @property
    def shared_seconds(self) -> float:
        """What the shared modules took for this window."""
        return sum(module.seconds for module in self.shared)


def variant_exists(name: str, condition: Condition) -> bool:
    """The oracle has nothing to say where no severity is known."""
    return name != "gate_oracle" or condition.true_quality("", 0, 1) is not None


def make_variants(tracker: Tracker, names: Sequence[str], condition: Condition) -> VariantSet:
    """The student and copies of it, each with its change; the student itself is left as it is."""
    shared = {name: Shared(getattr(tracker, name)) for name in _SHARED}
    made = []
    for name in names:
        # What a variant leaves as it is, it has in common with the student: no weights twice.
        common = {
            id(module): shared.get(part, module)
            for part, module in tracker.named_children()
            if part not in _REWRITTEN.get(name, ())
        }
        one = copy.deepcopy(tracker, common)
        quality = _change(one, name, condition)
        made.append(Variant(name, one.eval(), quality))
    return VariantSet(tuple(made), tuple(shared.values()))


def _change(tracker: Tracker, name: str, condition: Condition) -> Quality | None:
    if name == FULL:
        return None
    if name == "gate_off":
        closed = ClosedGate(tracker.config.dim).to(tracker.gate.bias.device)
        tracker.gate = closed
        return None
    if name == "no_semantics":
        tracker.fusion = _VisualFusion()  # type: ignore[assignment]
        for decoder in (tracker.detection_decoder, tracker.track_decoder):
            for layer in decoder.layers:
                layer.understand = _Silence()
        return None
    tracker.quality = FedQuality()  # type: ignore[assignment]
    told: dict[str, Quality] = {
        "gate_constant": lambda sequence, start, count: np.full(count, 0.5),
        "gate_oracle": condition.true_quality,
        RANDOM: lambda sequence, start, count: _random_quality(condition, sequence, start, count),
    }
    return told[name]


def _random_quality(
    condition: Condition, sequence: str, start: int, count: int
) -> np.ndarray[Any, Any]:
    seed = condition.seed_for(sequence)
    return np.array(
        [np.random.default_rng([seed, i]).random() for i in range(start, start + count)]
    )
