"""Small pictures of people: a crop of each track on sheets of tiles, and stills with boxes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

Array = np.ndarray[Any, Any]

TILE_WIDTH, TILE_HEIGHT = 80, 120
COLUMNS, ROWS = 10, 10
PALETTE = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")
"""Paul Tol's "bright" scheme without its grey: told apart by colour-blind people too."""

_MARGIN = 0.1  # of the box, around it
_STILL_WIDTH = 480
_QUALITY = 75


def crop(picture: Array, box: Sequence[float]) -> Image.Image:
    """A tile that shows a box and what is around it, in the shape of the tile.

    Args:
        picture: (H, W, 3) uint8 RGB.
        box: x, y, w, h in pixels.
    """
    height, width = picture.shape[:2]
    x, y, w, h = box
    # The box with a margin, widened to the tile's shape, moved into the picture.
    shown = max(w * (1 + 2 * _MARGIN) / TILE_WIDTH, h * (1 + 2 * _MARGIN) / TILE_HEIGHT)
    # The margin is left out where the picture has no room for it.
    shown = min(shown, max(height / TILE_HEIGHT, h / TILE_HEIGHT, w / TILE_WIDTH))
    shown = max(shown, 4 / TILE_WIDTH)
    wide, high = shown * TILE_WIDTH, shown * TILE_HEIGHT
    left = min(max(x + w / 2 - wide / 2, 0), max(width - wide, (width - wide) / 2))
    top = min(max(y + h / 2 - high / 2, 0), max(height - high, (height - high) / 2))
    window = (round(left), round(top), round(left + wide), round(top + high))
    # Beyond the picture Pillow fills with black.
    cut = Image.fromarray(picture).crop(window)
    return cut.resize((TILE_WIDTH, TILE_HEIGHT), Image.Resampling.LANCZOS)


def sheet(tiles: Sequence[Image.Image | None]) -> bytes:
    """Up to COLUMNS x ROWS tiles in one JPEG, row by row; None leaves a place grey."""
    rows = -(-len(tiles) // COLUMNS)
    canvas = Image.new("RGB", (COLUMNS * TILE_WIDTH, rows * TILE_HEIGHT), "#808080")
    for number, tile in enumerate(tiles):
        if tile is not None:
            canvas.paste(tile, (number % COLUMNS * TILE_WIDTH, number // COLUMNS * TILE_HEIGHT))
    return _jpeg(canvas)


def still(picture: Array, boxes: Array, track_ids: Array) -> bytes:
    """A frame with boxes and ids, as a small JPEG.

    Args:
        picture: (H, W, 3) uint8 RGB.
        boxes: (N, 4) x, y, w, h in pixels of the picture.
        track_ids: (N,) whole numbers.
    """
    scale = min(1.0, _STILL_WIDTH / picture.shape[1])
    size = (round(picture.shape[1] * scale), max(1, round(picture.shape[0] * scale)))
    image = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    for (x, y, w, h), number in zip((boxes * scale).tolist(), track_ids.tolist(), strict=True):
        colour = PALETTE[number % len(PALETTE)]
        corners = (x, y, x + w, y + h)
        # Dark lines on both sides make a colour visible on any ground.
        draw.rectangle((x - 1, y - 1, x + w + 1, y + h + 1), outline="black", width=4)
        draw.rectangle(corners, outline=colour, width=2)
        place = (x + 3, y + 2)
        draw.rectangle(draw.textbbox(place, str(number)), fill="black")
        draw.text(place, str(number), fill="white")
    return _jpeg(image)


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return file.getvalue()
