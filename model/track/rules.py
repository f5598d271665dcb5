"""Thresholds that decide when tracks begin, are seen, and end."""

from dataclasses import dataclass, fields
from typing import Self

from torch import Tensor

from model.net.config import ModelConfig


@dataclass(frozen=True, slots=True)
class TrackRules:
    """Thresholds of the lifecycle: numbers, or tensors (B,) with one value for each stream.

    Attributes:
        birth_threshold: score from which a detection begins a track.
        keep_threshold: score from which a track counts as seen in a frame.
        duplicate_iou: of two that overlap more than this, the worse is neither born nor seen.
        miss_tolerance: frames that a track survives unseen.
    """

    birth_threshold: float | Tensor
    keep_threshold: float | Tensor
    duplicate_iou: float | Tensor
    miss_tolerance: int | Tensor

    @classmethod
    def of(cls, config: ModelConfig) -> Self:
        """Return the rules of a model's config, whose fields have the same names."""
        return cls(*(getattr(config, field.name) for field in fields(cls)))
