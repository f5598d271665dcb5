"""How alike two tracks look, by the student's own memory of them."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# Share of the mean spread that is added in all directions. Between 0.003 and 0.1 it hardly matters.
_FLOOR = 0.03


def appearances(records: Array, spread: Array) -> Array:
    """(N, dim) unit vectors whose products are similarities; 0 for a track without a view.

    The student's memory tells where a person is and how large more than who it is. So directions in
    which the memory of one person changes count little: views are centred over the tracks and
    whitened by the spread within tracks (within-class covariance normalisation; Hatch, Kajarekar,
    Stolcke, 2006).

    Args:
        records: Of N tracks, see `looks.look_fields`.
        spread: (dim, dim) of views within tracks, see `Looks.spread`.
    """
    seen = records["views"] > 0
    vectors = np.zeros((len(records), len(spread)))
    if not seen.any():
        return vectors
    sums = records["memory_sum"][seen].astype(np.float64)
    views = records["views"][seen].astype(np.float64)
    vectors[seen] = sums / views[:, None] - sums.sum(0) / views.sum()
    values, directions = np.linalg.eigh(spread)
    values = values.clip(min=0)
    floor = _FLOOR * values.mean()
    if floor > 0:
        vectors = (vectors @ directions) / np.sqrt(values + floor)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
