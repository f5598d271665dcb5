"""Overlays: a video with boxes, ids, trails and a quality bar, and a contact sheet of it.

They are drawn from the tables and the source's frames, by supervision's annotators.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import supervision as sv
from PIL import Image, ImageDraw

Array = np.ndarray[Any, Any]
Picture = tuple[int, float, Array]
"""Frame index, time in seconds, RGB uint8 (H, W, 3) as displayed."""

_TIME_BASE = Fraction(1, 90_000)
_SAME_S = 1e-6  # two times that differ by less are of one frame
_TRAIL_FRAMES = 40
_SHEET_COLUMNS, _SHEET_ROWS, _SHEET_WIDTH = 4, 3, 400


class RenderError(ValueError):
    """There is no frame to draw."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """Counts of an overlay: frames of the video, boxes on them, tiles of the contact sheet."""

    frames: int
    boxes: int
    tiles: int


def render(
    pictures: Iterable[Picture], tracks: pa.Table, frames: pa.Table, video: Path, sheet: Path
) -> Overlay:
    """Write the annotated video (H.264 in mp4) and the contact sheet (PNG).

    Frames without a row in `frames` are left out: sampling has not tracked them. The video ends
    with the last row.

    Args:
        pictures: The source's frames in order.
        tracks, frames: The rows of this video in the tables of these names.
        video, sheet: Files to write.

    Raises:
        RenderError: No frame can be drawn.
    """
    artist = _Artist(tracks, frames)
    chosen = _spread(frames["frame_index"].to_numpy(), _SHEET_COLUMNS * _SHEET_ROWS)
    tiles: list[Image.Image] = []
    written = 0
    with av.open(str(video), "w", format="mp4") as container:
        for index, time_s, scene in _encoded(container, artist.drawn(pictures)):
            written += 1
            if index in chosen:
                tiles.append(_tile(scene, f"{time_s:.2f} s   frame {index}"))
    if not written:
        video.unlink(missing_ok=True)  # some muxers create the file before the first packet
        raise RenderError(
            f"{video.name}: no frame to draw; the source gave none, or `frames` has no row of it"
        )
    _contact_sheet(tiles).save(sheet)
    return Overlay(written, artist.boxes_drawn, len(tiles))


class _Artist:
    """Draws the tables' rows on frames, which have to come in order because of the trails."""

    def __init__(self, tracks: pa.Table, frames: pa.Table) -> None:
        tracks = tracks.sort_by("frame_index")
        self.boxes_drawn = 0
        self._frame_of_row = tracks["frame_index"].to_numpy()
        self._track_id = tracks["track_id"].to_numpy()
        self._score = tracks["score"].to_numpy()
        x, y, w, h = (tracks[name].to_numpy().astype(np.float32) for name in "xywh")
        self._corners = np.stack([x, y, x + w, y + h], axis=1)
        quality = frames["quality"].to_pylist()
        self._quality = dict(zip(frames["frame_index"].to_pylist(), quality, strict=True))
        self._first, self._last = min(self._quality, default=0), max(self._quality, default=-1)
        self._first_s = min(frames["time_s"].to_pylist(), default=0.0)
        # Tables of earlier versions lack the column: all their frames were encoded.
        encoded = frames["encoded"].to_pylist() if "encoded" in frames.column_names else []
        self._still = {i for i, fresh in zip(self._quality, encoded, strict=False) if not fresh}
        self._annotators: tuple[Any, ...] = ()

    def drawn(self, pictures: Iterable[Picture]) -> Iterator[Picture]:
        """The tracked frames with all annotations, as BGR."""
        before: int | None = None  # frames before the first one that was tracked
        for number, time_s, picture in pictures:
            if before is None:
                if time_s < self._first_s - _SAME_S:
                    continue
                # With only.start_s the tables count frames from there.
                before = number - self._first
            index = number - before
            if index > self._last:
                return
            if index not in self._quality:
                continue
            # supervision draws on BGR in place.
            scene = np.ascontiguousarray(picture[..., ::-1])
            yield index, time_s, self._draw(scene, index)

    def _draw(self, scene: Array, index: int) -> Array:
        if not self._annotators:
            self._annotators = _annotators(scene.shape[1], scene.shape[0])
        trace, box, label = self._annotators
        first, last = np.searchsorted(self._frame_of_row, (index, index + 1))
        rows = slice(first, last)
        seen = sv.Detections(
            xyxy=self._corners[rows],
            confidence=self._score[rows],
            class_id=np.zeros(last - first, dtype=int),
            tracker_id=self._track_id[rows].astype(int),
        )
        shown = zip(self._track_id[rows], self._score[rows], strict=True)
        names = [f"{number} {score:.2f}" for number, score in shown]
        scene = trace.annotate(scene, seen)
        scene = box.annotate(scene, seen)
        scene = label.annotate(scene, seen, labels=names)
        self.boxes_drawn += int(last - first)
        return _quality_bar(scene, float(self._quality[index]), index in self._still)


def _annotators(width: int, height: int) -> tuple[Any, ...]:
    thickness = max(1, round(min(width, height) / 270))
    scale = max(0.3, min(width, height) / 1100)
    track = sv.ColorLookup.TRACK
    return (
        sv.TraceAnnotator(
            position=sv.Position.BOTTOM_CENTER,
            trace_length=_TRAIL_FRAMES,
            thickness=thickness,
            color_lookup=track,
        ),
        sv.BoxAnnotator(thickness=thickness, color_lookup=track),
        sv.LabelAnnotator(
            text_color=sv.Color.BLACK,  # white cannot be read on the palette's yellows
            text_scale=scale,
            text_padding=max(1, round(6 * scale)),
            color_lookup=track,
        ),
    )


def _quality_bar(scene: Array, quality: float, still: bool) -> Array:
    """Draw a bar at the top left, whose length is the quality, from red (0) to green (1).

    Its text tells a still frame, whose values are those of the last encoded one.
    """
    height, width = scene.shape[:2]
    margin, thick = max(1, height // 60), max(2, height // 36)
    length = max(2, width // 4)
    share = min(max(quality, 0.0), 1.0)
    full = sv.Rect(margin, margin, length, thick)
    part = sv.Rect(margin, margin, max(1, round(length * share)), thick)
    scene = sv.draw_filled_rectangle(scene, full, sv.Color(40, 40, 40))
    colour = sv.Color(round(230 * (1 - share)), round(190 * share), 60)
    scene = sv.draw_filled_rectangle(scene, part, colour)
    where = sv.Point(margin + length // 2, margin + thick + max(4, height // 50))
    return sv.draw_text(
        scene,
        f"quality {quality:.2f}" + (", still" if still else ""),
        where,
        text_color=sv.Color.WHITE,
        text_scale=max(0.3, height / 1100),
        text_padding=2,
        background_color=sv.Color(40, 40, 40),
    )


def _encoded(container: Any, drawn: Iterator[Picture]) -> Iterator[Picture]:
    """Encode frames into the container, each at its own time, and yield them."""
    stream: Any = None
    shown = -1
    size = (0, 0)
    for index, time_s, scene in drawn:
        if stream is None:
            size = scene.shape[:2]
            stream = container.add_stream("libx264", options={"crf": "23", "preset": "veryfast"})
            stream.height, stream.width = size[0] + size[0] % 2, size[1] + size[1] % 2
            stream.pix_fmt = "yuv420p"
            stream.time_base = stream.codec_context.time_base = _TIME_BASE
        padding = ((0, size[0] % 2), (0, size[1] % 2), (0, 0))
        frame = av.VideoFrame.from_ndarray(np.pad(scene, padding, mode="edge"), format="bgr24")
        # Players need increasing times; in a damaged file two frames may have the same one.
        shown = max(shown + 1, round(time_s / _TIME_BASE))
        frame.pts, frame.time_base = shown, _TIME_BASE
        container.mux(stream.encode(frame))
        yield index, time_s, scene
    if stream is not None:
        container.mux(stream.encode())


def _spread(indices: Array, count: int) -> set[int]:
    """At most `count` of the indices, evenly over their range, first and last among them."""
    if len(indices) == 0:
        return set()
    places = np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int)
    return {int(i) for i in np.sort(indices)[places]}


def _tile(scene: Array, caption: str) -> Image.Image:
    picture = Image.fromarray(np.ascontiguousarray(scene[..., ::-1]))
    height = max(1, round(picture.height * _SHEET_WIDTH / picture.width))
    tile = Image.new("RGB", (_SHEET_WIDTH, height + 16), "black")
    tile.paste(picture.resize((_SHEET_WIDTH, height)), (0, 0))
    ImageDraw.Draw(tile).text((4, height + 2), caption, fill="white")
    return tile


def _contact_sheet(tiles: list[Image.Image]) -> Image.Image:
    columns = min(_SHEET_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    width, height = tiles[0].size
    sheet = Image.new("RGB", (columns * width, rows * height), "black")
    for place, tile in enumerate(tiles):
        sheet.paste(tile, (place % columns * width, place // columns * height))
    return sheet
