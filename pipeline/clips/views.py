"""Views: the part of a picture that a frame shows, how it is drawn, and how it is cut out.

A view is a rectangle in pixels of the picture. It may be larger than the picture; the rest is then
filled. A view that is cut and scaled becomes a frame, or a tile of one.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.clips.draws import log_uniform
from pipeline.clips.labels import Labels

_SMALL_PEOPLE = (24.0, 96.0)  # pixels high
_LARGE_PEOPLE = (160.0, 0.95)  # least height in pixels, greatest as a share of the frame's
_LEAST, _MOST = 0.6, 4.0  # bounds of a scale that aims at people, in units of the fit
_AROUND_SOMEBODY = 0.5  # share of views placed so that a person is inside
_ASPECT = 0.14  # natural logarithm: 15 %
_UNSQUEEZE = (0.75, 1.9)


@dataclass(frozen=True, slots=True)
class View:
    """The part of a picture that a frame shows, in pixels: top-left corner and size."""

    x: float
    y: float
    width: float
    height: float

    def towards(self, other: "View", share: float) -> "View":
        """Interpolate to another view by a share in [0, 1]."""
        mine = (self.x, self.y, self.width, self.height)
        theirs = (other.x, other.y, other.width, other.height)
        return View(*(a + (b - a) * share for a, b in zip(mine, theirs, strict=True)))


def cut(
    picture: np.ndarray, view: View, size: tuple[int, int], *, flip: bool = False, fill: int = 0
) -> np.ndarray:
    """Cut a view out of a picture (h, w, 3) uint8.

    Args:
        picture: to cut from.
        view: to cut; it overlaps the picture.
        size: width and height in pixels of the result.
        flip: mirror it left to right.
        fill: grey level outside the picture.

    Returns:
        (height, width, 3) uint8.
    """
    height, width = picture.shape[:2]
    # One pixel more on each side, for interpolation.
    left, top = max(0, math.floor(view.x) - 1), max(0, math.floor(view.y) - 1)
    right = min(width, math.ceil(view.x + view.width) + 1)
    bottom = min(height, math.ceil(view.y + view.height) + 1)
    scale_x, scale_y = size[0] / view.width, size[1] / view.height
    shift_x, shift_y = (left - view.x) * scale_x, (top - view.y) * scale_y
    # Bilinear interpolation reads two pixels a side, so a view that shrinks by more is halved
    # first. Whole blocks are ten times as fast. At the end of the picture part of a block may be
    # left out.
    block_x, block_y = _block(scale_x, right - left), _block(scale_y, bottom - top)
    right, bottom = (
        _whole(left, right, width, block_x),
        _whole(top, bottom, height, block_y),
    )
    part = picture[top:bottom, left:right]
    if block_x > 1 or block_y > 1:
        small = (part.shape[1] // block_x, part.shape[0] // block_y)
        part = cv2.resize(part, small, interpolation=cv2.INTER_AREA)
        scale_x, scale_y = scale_x * block_x, scale_y * block_y
    if flip:
        scale_x, shift_x = -scale_x, size[0] - shift_x
    # Pixel i covers i to i + 1, its centre lies at i + 1/2.
    matrix = np.array(
        [
            [scale_x, 0, shift_x + (scale_x - 1) / 2],
            [0, scale_y, shift_y + (scale_y - 1) / 2],
        ]
    )
    inside = view.x >= 0 and view.y >= 0
    inside &= view.x + view.width <= width and view.y + view.height <= height
    return cv2.warpAffine(
        part,
        matrix,
        size,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE if inside else cv2.BORDER_CONSTANT,
        borderValue=(fill, fill, fill),
    )


def _block(scale: float, length: int) -> int:
    """Pixels, a power of two, that are averaged before the rest of the scale is interpolated."""
    block = 1
    while scale * block < 0.5 and 2 * block <= length:
        block *= 2
    return block


def _whole(start: int, stop: int, end: int, block: int) -> int:
    """End of a range of whole blocks that covers start to stop, as far as `end` allows."""
    blocks = -(-(stop - start) // block)
    return start + min(blocks, (end - start) // block) * block


def labels_in(labels: Labels, view: View, size: tuple[int, int], *, flip: bool = False) -> Labels:
    """Labels of a picture, in pixels of a view that is cut to `size` (width, height)."""
    factor = (size[0] / view.width, size[1] / view.height)
    there = labels.moved(factor, (-view.x * factor[0], -view.y * factor[1]))
    there = there.clipped(*size)
    return there.flipped(size[0]) if flip else there


def draw_aspect(squeezed: bool, random: np.random.Generator) -> float:
    """Draw the factor by which a picture is made wider."""
    if squeezed and random.random() < 0.5:
        return log_uniform(random, *_UNSQUEEZE)
    return math.exp(random.uniform(-_ASPECT, _ASPECT))


def draw_scale(
    fit: float,
    labels: Labels,
    small: float,
    large: float,
    height: int,
    scales: tuple[float, float],
    random: np.random.Generator,
) -> tuple[float, int | None]:
    """Draw the scale of a picture, pixels of the frame a pixel of the picture, and its aim.

    Some draws aim at small people, who are found worst. Some aim at a large person, because large
    people are few in most sources, and their boxes miss by a share of their size.

    Args:
        fit: the scale at which the whole picture fits.
        labels: in pixels of the picture.
        small: share of draws that aim at small people, if there are any.
        large: share of draws that aim at a large person, if there is anybody.
        height: of the frame in pixels.
        scales: least and greatest scale of other draws, in units of the fit.
        random: source of the draws.

    Returns:
        The scale, and the large person as an index of labels; None without one.
    """
    aim, median = random.random(), labels.median_height()
    if median and aim < small:
        wanted = log_uniform(random, *_SMALL_PEOPLE) / median
        return fit * min(max(wanted / fit, _LEAST), scales[1]), None
    least, most = _LARGE_PEOPLE[0], _LARGE_PEOPLE[1] * height
    if median and aim < small + large and least < most:
        tallest = int(np.where(labels.ignore, 0.0, labels.heights).argmax())
        wanted = random.uniform(least, most) / float(labels.heights[tallest])
        return fit * min(max(wanted / fit, _LEAST), _MOST), tallest
    return fit * log_uniform(random, *scales), None


def draw_place(
    picture: tuple[int, int],
    extent: tuple[float, float],
    labels: Labels,
    person: int | None,
    random: np.random.Generator,
) -> View:
    """Draw the place of a view: inside the picture if it is smaller, else around the picture.

    Args:
        picture: width and height in pixels.
        extent: width and height of the view in pixels of the picture.
        labels: in pixels of the picture.
        person: who is in the view, as an index of labels; None: somebody in half of the draws.
        random: source of the draws.
    """
    if person is None and random.random() < _AROUND_SOMEBODY:
        people = np.flatnonzero(~labels.ignore)
        person = int(random.choice(people)) if len(people) else None
    box = None if person is None else labels.boxes[person]
    corner = []
    for axis in (0, 1):
        low, high = sorted((0.0, picture[axis] - extent[axis]))
        if box is not None and high > 0:
            start, end = float(box[axis]), float(box[axis + 2])
            if end - start > extent[axis]:
                # Too large for the view, which has the middle of the box inside then.
                middle = (start + end) / 2
                start, end = middle - 0.1 * extent[axis], middle + 0.1 * extent[axis]
            low = max(low, min(high, end - extent[axis]))
            high = max(low, min(high, start))
        corner.append(random.uniform(low, high))
    return View(corner[0], corner[1], *extent)


def draw_view(
    width: int, height: int, canvas: tuple[int, int], random: np.random.Generator
) -> View:
    """Draw the first view of a clip: in a third of the draws the whole picture, else a part.

    A part is squeezed a little.

    Args:
        width, height: of the picture in pixels.
        canvas: height and width in pixels.
        random: source of the draws.
    """
    if random.random() < 0.35:
        return View(0, 0, width, height)
    aspect = canvas[1] / canvas[0] * math.exp(random.uniform(-0.25, 0.25))
    view_width = width * log_uniform(random, 0.4, 1.0)
    view_height = min(height, view_width / aspect)
    view_width = min(view_width, view_height * aspect * 1.15)
    x, y = random.uniform(0, width - view_width), random.uniform(0, height - view_height)
    return View(x, y, view_width, view_height)


def draw_moved(
    view: View, width: int, height: int, random: np.random.Generator, *, still: bool
) -> View:
    """Draw the last view of a clip: a still pans and zooms, a video only shakes."""
    reach = 0.2 if still else 0.02
    zoom = math.exp(random.uniform(-reach, reach) * 0.6)
    new_width, new_height = min(width, view.width * zoom), min(height, view.height * zoom)
    x = view.x + random.uniform(-reach, reach) * view.width
    y = view.y + random.uniform(-reach, reach) * view.height * 0.5
    x, y = (min(max(x, 0), width - new_width), min(max(y, 0), height - new_height))
    return View(x, y, new_width, new_height)
