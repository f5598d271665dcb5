"""A picture as one plane of luma and two of colour, to be drawn on without converting it to RGB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from PIL import ImageColor

from pipeline.video.probe import orientation

Array = np.ndarray[Any, Any]
Colour = tuple[int, int, int]
"""Luma and the two differences of colour, in limited range."""

BLACK: Colour = (16, 128, 128)
WHITE: Colour = (235, 128, 128)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_HEIGHT = 22  # pixels of a capital letter at scale 1
_SHADE = 16  # distance of the shades that a cell of a mosaic may have


def colour(name: str) -> Colour:
    """A colour of style sheets, as `#4477aa`, in the values of BT.709."""
    r, g, b = (value / 255 for value in ImageColor.getrgb(name)[:3])
    luma = 0.2126 * r + 0.7152 * g + 0.0722 * b
    blue, red = (b - luma) / 1.8556, (r - luma) / 1.5748
    return round(16 + 219 * luma), round(128 + 224 * blue), round(128 + 224 * red)


class Planes:
    """A picture in YUV 4:2:0 of limited range, with even sides.

    Attributes:
        luma: (H, W) uint8.
        colours: two arrays of (H / 2, W / 2) uint8, which share memory with the picture.
    """

    def __init__(self, height: int, width: int) -> None:
        """Make an empty picture of this size; an odd side becomes one longer."""
        height, width = height + height % 2, width + width % 2
        self._data = np.empty((height * 3 // 2, width), np.uint8)
        flat, pixels = self._data.reshape(-1), height * width
        self.luma = flat[:pixels].reshape(height, width)
        half = (2, height // 2, width // 2)
        self.colours: Array = flat[pixels:].reshape(half)

    @classmethod
    def of(cls, picture: VideoFrame, height: int, width: int, scaler: VideoReformatter) -> Planes:
        """Take a stored picture, upright and scaled to a size; it is copied, never changed."""
        turns, mirrored = orientation(picture)
        stored = (width, height) if turns % 2 else (height, width)
        full = picture.color_range == ColorRange.JPEG or picture.format.name.startswith("yuvj")
        plain = scaler.reformat(
            picture,
            width=stored[1],
            height=stored[0],
            format="yuv420p",
            src_color_range=ColorRange.JPEG if full else None,
            dst_color_range=ColorRange.MPEG if full else None,
            interpolation="BILINEAR",
            threads=1,
        )
        made = cls(height, width)
        for plane, target in zip(plain.planes, (made.luma, *made.colours), strict=True):
            rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
            image = rows[: plane.height, : plane.width]
            image = np.rot90(image[:, ::-1] if mirrored else image, -turns)
            target[: image.shape[0], : image.shape[1]] = image
        if height % 2:
            made.luma[-1] = made.luma[-2]
        if width % 2:
            made.luma[:, -1] = made.luma[:, -2]
        return made

    def frame(self) -> VideoFrame:
        """The picture for an encoder; it shares the memory."""
        return VideoFrame.from_numpy_buffer(self._data, format="yuv420p")

    def rgb(self, width: int, scaler: VideoReformatter) -> Array:
        """A copy in RGB of this width, (h, width, 3) uint8."""
        height = max(1, round(self.luma.shape[0] * width / self.luma.shape[1]))
        frame = scaler.reformat(self.frame(), width=width, height=height, format="rgb24")
        return frame.to_ndarray()

    def fill(self, box: Sequence[float], shade: Colour) -> None:
        """Fill left, top, right, bottom in pixels, rounded to even ones."""
        left, top, right, bottom = self._inside(box)
        self.luma[top:bottom, left:right] = shade[0]
        for plane, value in zip(self.colours, shade[1:], strict=True):
            plane[top // 2 : bottom // 2, left // 2 : right // 2] = value

    def outline(self, box: Sequence[float], shade: Colour, thick: int) -> None:
        """Draw lines on the inner side of left, top, right, bottom."""
        left, top, right, bottom = box
        self.fill((left, top, right, top + thick), shade)
        self.fill((left, bottom - thick, right, bottom), shade)
        self.fill((left, top, left + thick, bottom), shade)
        self.fill((right - thick, top, right, bottom), shade)

    def path(self, points: Array, shade: Colour, thick: int) -> None:
        """Draw a line through points, (N, 2) x and y in pixels."""
        places = points.round().astype(np.int32)[:, None]
        cv2.polylines(self.luma, [places], False, shade[0], thick)
        for plane, value in zip(self.colours, shade[1:], strict=True):
            cv2.polylines(plane, [places // 2], False, value, max(1, thick // 2))

    def label(self, left: float, top: float, words: str, high: int, shade: Colour) -> None:
        """Write white words on black beside a stripe of a colour, moved into the picture.

        Args:
            left, top: of the label in pixels.
            words: plain ASCII.
            high: height of a capital letter in pixels.
            shade: of the stripe.
        """
        scale, thick = high / _FONT_HEIGHT, max(1, high // 8)
        (wide, _), _ = cv2.getTextSize(words, _FONT, scale, thick)
        margin = max(2, high // 3)
        stripe = 2 * max(1, high // 5)
        height, width = self.luma.shape
        left = min(max(left, 0), max(0, width - wide - 2 * margin - stripe))
        top = min(max(top, 0), max(0, height - high - 2 * margin))
        box = (left, top, left + stripe + wide + 2 * margin, top + high + 2 * margin)
        self.fill(box, BLACK)
        self.fill((left, top, left + stripe, box[3]), shade)
        place = (round(left) + stripe + margin, round(top) + high + margin)
        cv2.putText(self.luma, words, place, _FONT, scale, WHITE[0], thick, cv2.LINE_AA)

    def mosaic(self, box: Sequence[float], cell: float) -> None:
        """Replace left, top, right, bottom by cells of one colour each.

        A cell keeps its mean in few shades. Finer detail is not in the picture any more. Few shades
        also leave less to compute from many pictures in which the cells lie at other places.
        """
        left, top, right, bottom = self._inside(box)
        if right <= left or bottom <= top:
            return
        cells = max(1, round((right - left) / cell)), max(1, round((bottom - top) / cell))
        for plane, part in ((self.luma, 1), *((plane, 2) for plane in self.colours)):
            region = plane[top // part : bottom // part, left // part : right // part]
            size = region.shape[1], region.shape[0]
            count = min(cells[0], size[0]), min(cells[1], size[1])
            means = cv2.resize(region, count, interpolation=cv2.INTER_AREA)
            # Rounded so that 128, which is no colour, stays.
            shades = ((means.astype(np.int16) + _SHADE // 2) // _SHADE * _SHADE).clip(16, 240)
            shades = shades.astype(np.uint8)
            region[:] = cv2.resize(shades, size, interpolation=cv2.INTER_NEAREST)

    def _inside(self, box: Sequence[float]) -> tuple[int, int, int, int]:
        """The box within the picture, rounded to even pixels."""
        height, width = self.luma.shape
        left, top, right, bottom = (round(value / 2) * 2 for value in box)
        return (
            min(max(left, 0), width), min(max(top, 0), height),
            min(max(right, 0), width), min(max(bottom, 0), height),
        )  # fmt: skip
