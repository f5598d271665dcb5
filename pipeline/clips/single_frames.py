"""Single frames to train detection on: views of one picture, mosaics of four, people pasted in."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from model.teach.scaled import scaled_size
from pipeline.clips.config import ClipConfig
from pipeline.clips.labels import Labels, joined
from pipeline.clips.recolour import draw_curves, recolour
from pipeline.clips.views import View, cut, draw_aspect, draw_place, draw_scale, labels_in

_SINGLE_SCALES, _TILE_SCALES = (0.75, 2.2), (0.9, 3.0)
_MIDDLE = (0.35, 0.65)  # where the four tiles of a mosaic meet, in shares of the canvas
_FILLS = (0, 114)  # grey levels where no picture is


@dataclass(frozen=True, slots=True)
class Still:
    """One picture with its labels.

    Attributes:
        pixels: (h, w, 3) uint8 RGB.
        labels: in its pixels.
        squeezed: its aspect ratio was changed.
        name: where it came from.
    """

    pixels: np.ndarray
    labels: Labels
    squeezed: bool
    name: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]


@dataclass(frozen=True, slots=True)
class SingleFrame:
    """One frame.

    Attributes:
        pixels: (h, w, 3) uint8, no larger than the canvas.
        labels: in its pixels.
        name: names of its pictures.
        large: the same frame at the scale of the teacher; None for none.
    """

    pixels: np.ndarray
    labels: Labels
    name: str
    large: np.ndarray | None = None


def draw_single(
    still: Still,
    canvas: tuple[int, int],
    config: ClipConfig,
    random: np.random.Generator,
    large_scale: float | None = None,
) -> SingleFrame:
    """A view of one picture on a canvas (height, width).

    If it is smaller than the canvas it lies anywhere on a grey one. Else it fills the canvas in at
    least one direction.

    Args:
        still: the picture.
        canvas: height and width in pixels.
        config: settings of the clips.
        random: source of the draws.
        large_scale: sides of the large frame, as a multiple of this one's; None makes none.
    """
    size = (canvas[1], canvas[0])
    view = _draw_view(still, size, _SINGLE_SCALES, config, random)
    extent, picture = (view.width, view.height), still.size
    if any(e <= p for e, p in zip(extent, picture, strict=True)):
        # The frame ends where the picture ends.
        view = View(
            max(view.x, 0.0),
            max(view.y, 0.0),
            min(extent[0], picture[0]),
            min(extent[1], picture[1]),
        )
        size = (
            max(1, round(size[0] * view.width / extent[0])),
            max(1, round(size[1] * view.height / extent[1])),
        )
    large_size = None if large_scale is None else scaled_size(size, large_scale)
    pixels, labels, large = _tile(still, view, size, random, large_size)
    return SingleFrame(pixels, labels, still.name, large)


def draw_mosaic(
    draw_still: Callable[[], Still],
    canvas: tuple[int, int],
    config: ClipConfig,
    random: np.random.Generator,
    large_scale: float | None = None,
) -> SingleFrame:
    """Four pictures around a point of a canvas (height, width); arguments as of `draw_single`."""
    height, width = canvas
    frame, large = np.empty((height, width, 3), np.uint8), None
    if large_scale is not None:
        large = np.empty((*scaled_size(canvas, large_scale), 3), np.uint8)
    middle = (
        round(width * random.uniform(*_MIDDLE)),
        round(height * random.uniform(*_MIDDLE)),
    )
    parts, names = [], []
    for left, right in ((0, middle[0]), (middle[0], width)):
        for top, bottom in ((0, middle[1]), (middle[1], height)):
            still, size = draw_still(), (right - left, bottom - top)
            view = _draw_view(still, size, _TILE_SCALES, config, random)
            place = large_size = None
            if large is not None and large_scale is not None:
                x1, y1 = scaled_size((left, top), large_scale)
                x2, y2 = scaled_size((right, bottom), large_scale)
                place, large_size = large[y1:y2, x1:x2], (x2 - x1, y2 - y1)
            tile = _tile(still, view, size, random, large_size)
            frame[top:bottom, left:right], labels, large_tile = tile
            if place is not None and large_tile is not None:
                place[:] = large_tile
            parts.append(labels.moved((1, 1), (left, top)))
            names.append(still.name)
    return SingleFrame(frame, joined(parts, renumber=True), " + ".join(names), large)


def _draw_view(
    still: Still,
    size: tuple[int, int],
    scales: tuple[float, float],
    config: ClipConfig,
    random: np.random.Generator,
) -> View:
    """The part of the picture that a frame or tile of `size` (width, height) shows."""
    aspect = draw_aspect(still.squeezed, random)
    width, height = still.size
    fit = min(size[0] / (width * aspect), size[1] / height)
    scale, person = draw_scale(
        fit, still.labels, config.small, config.large, size[1], scales, random
    )
    extent = (size[0] / (scale * aspect), size[1] / scale)
    return draw_place(still.size, extent, still.labels, person, random)


def _tile(
    still: Still,
    view: View,
    size: tuple[int, int],
    random: np.random.Generator,
    large_size: tuple[int, int] | None,
) -> tuple[np.ndarray, Labels, np.ndarray | None]:
    """A view of `size` (width, height) with newly drawn colours, its labels, and it in large."""
    flip, fill = random.random() < 0.5, _FILLS[random.integers(len(_FILLS))]
    curves, labels = draw_curves(random), labels_in(still.labels, view, size, flip=flip)

    def at(size: tuple[int, int]) -> np.ndarray:
        return recolour(cut(still.pixels, view, size, flip=flip, fill=fill), curves)

    return at(size), labels, None if large_size is None else at(large_size)
