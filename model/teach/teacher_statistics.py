"""Statistics that normalise a teacher's features before a student is compared with them.

Shapes: C and Cp widths of the teacher's dense and pooled features.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from model.teach.teacher import TeacherFeatures, TeacherInfo

STATISTICS_TOKENS = 10_000
"""Positions that suffice for the statistics of a teacher's features."""


@dataclass(frozen=True, slots=True)
class TeacherStatistics:
    """Normalisation of a teacher's features: `(x - mean) / scale`, channel by channel.

    Each level has one scale, so that all levels count alike in the vector of a position. Cosine
    distance ignores rotations and a common scale, so PHI-S would be the same as centring.

    Attributes:
        dense_mean, dense_scale: (C,). pooled_mean, pooled_scale: (Cp,).
    """

    dense_mean: Tensor
    dense_scale: Tensor
    pooled_mean: Tensor
    pooled_scale: Tensor


def measure_statistics(
    info: TeacherInfo,
    features: Iterable[TeacherFeatures],
    tokens: int = STATISTICS_TOKENS,
) -> TeacherStatistics:
    """Mean and scale of a teacher's features over the first `tokens` valid positions.

    Args:
        info: of the teacher.
        features: of clean frames; no more are read than needed.
        tokens: least number of valid positions; fewer if there are no more.

    Raises:
        ValueError: there is not one frame with dense features.
    """
    positions, vectors, count = [], [], 0
    for found in features:
        positions.append(found.dense.permute(0, 2, 3, 1)[found.valid].double().cpu())
        vectors.append(found.pooled.double().cpu())
        count += len(positions[-1])
        if count >= tokens:
            break
    if count == 0:
        raise ValueError(
            f"teacher {info.id}: no dense features to take statistics of; cache a larger share"
        )
    dense, pooled = torch.cat(positions), torch.cat(vectors)
    dense_mean, pooled_mean = dense.mean(0), pooled.mean(0)
    levels = (dense - dense_mean).split(info.levels, dim=1)
    dense_scale = torch.cat([x.square().mean().sqrt().expand(x.shape[1]) for x in levels])
    spread = (pooled - pooled_mean).square().mean().sqrt()
    # A single frame has no spread, so the scale has a lower limit.
    return TeacherStatistics(
        dense_mean.float(),
        dense_scale.clamp(min=1e-6).float(),
        pooled_mean.float(),
        spread.clamp(min=1e-6).expand(info.pooled_dim).float(),
    )
