"""The part of a picture in which people are wanted: polygons, and the crop that holds them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipeline.video.errors import DecodeError

Polygon = tuple[tuple[float, float], ...]
"""Corners x, y in order, the last one joined to the first."""
Array = np.ndarray[Any, np.dtype[np.float64]]

_CORNERS = 3
_THIN = 1e-6  # share of its length that a polygon must be wide
_LEAST_PIXELS = 16  # a polygon in pixels that is smaller was meant in fractions

# A region is where people stand. The crop shows more of the picture, so that they are seen whole:
# above by this share of its height, and on the other sides.
_ABOVE, _BESIDE = 1 / 4, 1 / 16
_INSIDE = 0.01  # pixels; a point on the border of the picture counts as so far inside


class RegionError(DecodeError):
    """A region reaches beyond the picture of a video; the message says how far."""


@dataclass(frozen=True, slots=True)
class Crop:
    """A rectangle of a displayed picture, in whole pixels."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """A region of the displayed pictures of one video.

    Attributes:
        polygons: (corners, 2) x, y in pixels each.
        height, width: of the picture, in pixels.
    """

    polygons: tuple[Array, ...]
    height: int
    width: int

    @classmethod
    def of(cls, polygons: Sequence[Polygon], height: int, width: int) -> Self:
        """The region in a displayed picture of this size, in pixels.

        Args:
            polygons: at least one, in which `problem_of` finds nothing. They are shares of the
                picture if no number is greater than 1, else pixels.
            height, width: of the picture.

        Raises:
            RegionError: a polygon reaches beyond the picture.
        """
        scale = (width, height) if in_shares(polygons) else (1, 1)
        found = tuple(np.array(polygon, np.float64) * scale for polygon in polygons)
        right, low = np.concatenate(found).max(0)
        if right > width or low > height:
            raise RegionError(
                f"only.region reaches to x={right:g}, y={low:g}, and the picture has "
                f"{width}x{height} pixels; give fractions from 0 to 1, or track videos of this "
                "size in a run of their own"
            )
        return cls(found, height, width)

    def holds(self, points: Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether points (N, 2) of x, y in pixels lie in one of the polygons, (N,).

        Points on the border of the picture count as inside of it. Where a polygon overlaps itself
        an even number of times, its points are outside (even-odd rule).
        """
        border = np.array([self.width, self.height]) - _INSIDE
        inner = np.clip(points, _INSIDE, border)
        inside = np.zeros(len(points), bool)
        for polygon in self.polygons:
            inside |= _in_polygon(inner, polygon)
        return inside

    @property
    def crop(self) -> Crop | None:
        """The bounding box with room for people who stand at its edge; None is all the picture."""
        corners = np.concatenate(self.polygons)
        (left, top), (right, bottom) = corners.min(0), corners.max(0)
        beside, below = _BESIDE * self.width, _BESIDE * self.height
        # Even numbers, because colours are mostly stored for two by two pixels.
        x0, y0 = (
            max(0, 2 * math.floor(side / 2)) for side in (left - beside, top - _ABOVE * self.height)
        )
        x1 = min(self.width, 2 * math.ceil((right + beside) / 2))
        y1 = min(self.height, 2 * math.ceil((bottom + below) / 2))
        if (x1 - x0, y1 - y0) == (self.width, self.height):
            return None
        return Crop(x0, y0, x1 - x0, y1 - y0)


def in_shares(polygons: Sequence[Polygon]) -> bool:
    """Whether polygons are given in shares of the picture, not in pixels."""
    return all(value <= 1 for polygon in polygons for point in polygon for value in point)


def problem_of(polygons: Sequence[Polygon]) -> str | None:
    """Why polygons are no region of any picture, None if nothing is wrong with them."""
    shares = in_shares(polygons)
    for number, polygon in enumerate(polygons, 1):
        corners = np.array(polygon, np.float64).reshape(-1, 2)
        name = f"polygon {number} of {len(polygons)}"
        if not np.isfinite(corners).all() or (corners < 0).any():
            return f"{name}: {list(map(list, polygon))} has a number that is not 0 or more"
        if len(corners) < _CORNERS:
            return f"{name} has {len(corners)} corners; a polygon has at least {_CORNERS}"
        length, thickness = np.linalg.svd(corners - corners.mean(0), compute_uv=False)
        if thickness <= _THIN * length:
            return f"{name} has no area: all its corners lie on one line"
        sides = np.ptp(corners, axis=0)
        if not shares and sides.min() < _LEAST_PIXELS:
            return (
                f"{name} is {sides[0]:g} by {sides[1]:g} pixels, and the least is {_LEAST_PIXELS}; "
                "in fractions of the picture all numbers are at most 1"
            )
    return None


def _in_polygon(points: Array, polygon: Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Even-odd rule: whether a line from a point to the right crosses an odd number of edges."""
    x, y = points[:, :1], points[:, 1:]
    (x1, y1), (x2, y2) = polygon.T, np.roll(polygon, -1, axis=0).T
    crosses = (y1 > y) != (y2 > y)
    rise = np.where(y1 == y2, 1.0, y2 - y1)  # a level edge is not crossed
    right = x < x1 + (y - y1) * (x2 - x1) / rise
    odd: np.ndarray[Any, np.dtype[np.bool_]] = (crosses & right).sum(1) % 2 == 1
    return odd
