"""Draws the rows of a video on its pictures: boxes, ids, trails and a bar of quality."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.report.config import Blur
from pipeline.report.crops import PALETTE
from pipeline.report.overlays.hidden import Hidden
from pipeline.report.overlays.planes import BLACK, Planes, colour
from pipeline.report.overlays.rows import Array, OverlayRows
from pipeline.report.track_rows import LOW_TRUST

_TRAIL_FRAMES = 40
_COLOURS = tuple(colour(name) for name in PALETTE)
_BAR, _BAR_REST = colour("#ccbb44"), colour("#303030")


@dataclass(frozen=True, slots=True)
class Look:
    """What is drawn: the tracks of these ids, and what is hidden of all people."""

    tracks: frozenset[int]
    blur: Blur = "none"


class Artist:
    """Draws on pictures whose sides are `scale` times those of the displayed video."""

    def __init__(self, rows: OverlayRows, look: Look, scale: int) -> None:
        self.boxes_drawn = 0
        self._rows, self._look, self._scale = rows, look, scale
        self._hidden = Hidden(rows, look.blur)
        shown = np.flatnonzero(np.isin(rows.track_id, list(look.tracks)))
        # Rows of each frame to draw, and rows of each track in order of frames, for the trails.
        self._by_frame = shown[np.argsort(rows.frame[shown], kind="stable")]
        frames = np.arange(len(rows.time_s) + 1)
        self._first = np.searchsorted(rows.frame[self._by_frame], frames)
        x, y, w, h = rows.boxes.T
        self._feet = np.stack([x + w / 2, y + h], axis=1) * scale

    def draw(self, picture: Planes, frame: int) -> None:
        """Draw the rows of the frame at a position."""
        self._hidden.hide(picture, frame, self._scale)
        side = min(picture.luma.shape)
        thick, letters = max(2, round(side / 540) * 2), max(8, round(side / 60))
        found = self._by_frame[self._first[frame] : self._first[frame + 1]]
        for row in found.tolist():
            shade = _COLOURS[int(self._rows.track_id[row]) % len(_COLOURS)]
            picture.path(self._trail(row, frame), shade, thick)
        for row in found.tolist():
            self._box(picture, row, thick, letters)
        self._quality(picture, frame, letters)
        self.boxes_drawn += len(found)

    def _trail(self, row: int, frame: int) -> Array:
        """Feet of a track in the frames up to this row's."""
        rows = self._rows
        first = max(0, row - _TRAIL_FRAMES)
        own = (rows.track_id[first : row + 1] == rows.track_id[row]) & (
            rows.frame[first : row + 1] > frame - _TRAIL_FRAMES
        )
        found: Array = self._feet[first : row + 1][own]
        return found

    def _box(self, picture: Planes, row: int, thick: int, letters: int) -> None:
        number = int(self._rows.track_id[row])
        shade = _COLOURS[number % len(_COLOURS)]
        x, y, w, h = (self._rows.boxes[row] * self._scale).tolist()
        # Dark lines on both sides make a colour visible on any ground.
        picture.outline((x - 2, y - 2, x + w + 2, y + h + 2), BLACK, 2)
        picture.outline((x, y, x + w, y + h), shade, thick)
        inner = (x + thick, y + thick, x + w - thick, y + h - thick)
        picture.outline(inner, BLACK, 2)
        words = f"{number} {self._rows.score[row]:.2f}"
        trust = self._rows.trust.get(number, 1.0)
        if trust < LOW_TRUST:
            words += f" trust {trust:.2f}"
        picture.label(x - 2, y - 2 - letters - 2 * max(2, letters // 3), words, letters, shade)

    def _quality(self, picture: Planes, frame: int, letters: int) -> None:
        """A bar at the top left, as long as the quality is high, and the value in words.

        Words tell a still frame, whose values are those of the last encoded one.
        """
        height, width = picture.luma.shape
        quality = float(self._rows.quality[frame])
        margin, thick, length = max(2, height // 60), max(4, height // 60), max(4, width // 4)
        part = length * min(max(quality, 0.0), 1.0)
        picture.fill((margin, margin, margin + length, margin + thick), _BAR_REST)
        picture.fill((margin, margin, margin + part, margin + thick), _BAR)
        words = f"quality {quality:.2f}" + ("" if self._rows.encoded[frame] else ", still")
        picture.label(margin, margin + thick, words, letters, _BAR)
