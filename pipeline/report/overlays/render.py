"""Overlays: a video with the rows of its tables drawn on it, and a contact sheet."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image, ImageDraw

from pipeline.report.overlays.ahead import ahead
from pipeline.report.overlays.artist import Artist, Look
from pipeline.report.overlays.rows import OverlayRows, RenderError
from pipeline.report.overlays.stream import Encoder, Pictures
from pipeline.video.info import VideoInfo

Progress = Callable[[int, int], object]

_LEAST_HEIGHT = 360  # smaller pictures are enlarged by a whole number, or labels could not be read
_AHEAD = 4  # pictures decoded ahead
_SHEET_COLUMNS, _SHEET_ROWS, _SHEET_WIDTH = 4, 3, 400


@dataclass(frozen=True, slots=True)
class Overlay:
    """An overlay that was written.

    Attributes:
        frames: frames of the video.
        missing: tracked frames of the range that the source did not give.
        boxes: boxes drawn.
        tiles: tiles of the contact sheet.
        error: why the source ended early, None if it did not.
    """

    frames: int
    missing: int
    boxes: int
    tiles: int
    error: str | None


def render(
    info: VideoInfo,
    rows: OverlayRows,
    within: range,
    look: Look,
    video: Path,
    sheet: Path,
    progress: Progress = lambda done, of: None,
) -> Overlay:
    """Write the annotated video (H.264 in mp4, without sound) and the contact sheet (PNG).

    Frames without a row in `frames` are left out: sampling has not tracked them. The video begins
    at zero with the first frame that is drawn, and each frame stays as long as in the source.

    Args:
        info: The source.
        rows: Its rows.
        within: Positions of the frames to draw, not empty.
        look: What to draw.
        video, sheet: Files to write.
        progress: Called after each frame with the frames done and their number.

    Raises:
        RenderError: The source has none of the frames.
        DecodeError: The source cannot be decoded.
        StorageError: The source cannot be read.
    """
    scale = max(1, _LEAST_HEIGHT // info.height)
    artist = Artist(rows, look, scale)
    chosen = {
        int(n) for n in np.linspace(within[0], within[-1], _SHEET_COLUMNS * _SHEET_ROWS).round()
    }
    scaler = VideoReformatter()
    tiles: list[Image.Image] = []
    written = 0
    start_s, end_s = float(rows.time_s[within[0]]), float(rows.time_s[within[-1]])
    tracked = Pictures(info, rows, within, scale * info.height, scale * info.width)
    pictures = ahead(tracked, _AHEAD)
    options = {"movflags": "faststart"}
    with (
        closing(pictures),  # type: ignore[type-var]  # a generator
        av.open(str(video), "w", format="mp4", options=options) as container,
    ):
        encoder: Encoder | None = None
        for frame, source, picture in pictures:
            encoder = encoder or Encoder(container, source, picture)
            artist.draw(picture, frame)
            encoder.write(picture, float(rows.time_s[frame]) - start_s)
            if frame in chosen:
                caption = f"{rows.time_s[frame]:.2f} s   frame {rows.index[frame]}"
                tiles.append(_tile(picture.rgb(_SHEET_WIDTH, scaler), caption))
            written += 1
            progress(written, len(within))
        if encoder is not None:
            encoder.close()
    if not written:
        video.unlink(missing_ok=True)  # some muxers create the file before the first packet
        why = f": {tracked.error}" if tracked.error else ""
        raise RenderError(
            f"{info.relative_path}: no frame to draw; the source has none of the tracked frames "
            f"from {start_s:.2f} to {end_s:.2f} s{why}"
        )
    _contact_sheet(tiles).save(sheet)
    missing = len(within) - written
    return Overlay(
        written, missing, artist.boxes_drawn, len(tiles), tracked.error if missing else None
    )


def _tile(picture: np.ndarray, caption: str) -> Image.Image:
    tile = Image.new("RGB", (picture.shape[1], picture.shape[0] + 16), "black")
    tile.paste(Image.fromarray(picture), (0, 0))
    ImageDraw.Draw(tile).text((4, picture.shape[0] + 2), caption, fill="white")
    return tile


def _contact_sheet(tiles: list[Image.Image]) -> Image.Image:
    columns = min(_SHEET_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    width, height = tiles[0].size
    sheet = Image.new("RGB", (columns * width, rows * height), "black")
    for place, tile in enumerate(tiles):
        sheet.paste(tile, (place % columns * width, place // columns * height))
    return sheet
