"""How alike two tracks look, by the student's own memory of them and by their colours."""

from __future__ import annotations

import numpy as np

from pipeline.stitching.colours import COLOURS, Array

# Share of the mean spread that is added in all directions. Between 0.003 and 0.1 it hardly matters.
_FLOOR = 0.03
# Length of a view beside the mean of all that is rounding: everybody looks the same.
_NOTHING = 1e-5
# Share of the colours in a similarity; `vsdmot measure what=evidence` fits it.
_COLOUR_SHARE = 0.7
# Of n views a share of n / (n + this) is taken for sure.
_UNSURE = 0.5


def appearances(records: Array, spread: Array) -> Array:
    """(N, width) vectors whose products are similarities; 0 for a track without a view.

    Their lengths are at most 1, and grow with the number of views, because few views say little.

    Args:
        records: Of N tracks, see `looks.look_fields`.
        spread: (width, width) of views within tracks, see `Looks.spread`.
    """
    memory, colour = separate_appearances(records, spread)
    return np.concatenate(
        [np.sqrt(1 - _COLOUR_SHARE) * memory, np.sqrt(_COLOUR_SHARE) * colour], axis=1
    )


def separate_appearances(records: Array, spread: Array) -> tuple[Array, Array]:
    """Vectors of the memories (N, dim) and of the colours (N, COLOURS), see `appearances`.

    The student's memory tells where a person is and how large more than who it is, and colours tell
    the light. So directions in which the view of one person changes count little: views are centred
    over the tracks and whitened by the spread within tracks (within-class covariance normalisation;
    Hatch, Kajarekar, Stolcke, 2006).
    """
    seen = records["views"] > 0
    vectors = np.zeros((len(records), len(spread)))
    if seen.any():
        sums = records["view_sum"][seen].astype(np.float64)
        views = records["views"][seen].astype(np.float64)
        vectors[seen] = sums / views[:, None] - sums.sum(0) / views.sum()
    dim = len(spread) - COLOURS
    sure = np.sqrt(records["views"] / (records["views"] + _UNSURE))[:, None]
    return (
        sure * _directions(vectors[:, :dim], spread[:dim, :dim]),
        sure * _directions(vectors[:, dim:], spread[dim:, dim:]),
    )


def _directions(vectors: Array, spread: Array) -> Array:
    """Whitened vectors (N, D), of length 1 where they differ from 0."""
    distinct = np.linalg.norm(vectors, axis=1, keepdims=True) > _NOTHING
    values, directions = np.linalg.eigh(spread)
    values = values.clip(min=0)
    floor = _FLOOR * values.mean()
    if floor > 0:
        vectors = (vectors @ directions) / np.sqrt(values + floor)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=distinct)
