"""Overlays: a video with the rows of its tables drawn on it, and a contact sheet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from PIL import Image, ImageDraw

from pipeline.report.overlays.ahead import ahead
from pipeline.report.overlays.artist import Artist, Look
from pipeline.report.overlays.planes import Planes
from pipeline.report.overlays.rows import OverlayRows, RenderError
from pipeline.video.decoder import Decoder
from pipeline.video.info import VideoInfo

Progress = Callable[[int, int], object]

_TIME_BASE = Fraction(1, 90_000)
_SAME_S = 1e-6  # two times that differ by less are of one frame
_LEAST_HEIGHT = 360  # smaller pictures are enlarged by a whole number, or labels could not be read
_AHEAD = 4  # pictures decoded ahead
_KEY_EVERY = 50  # frames, so that a player can jump
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
    decoder = Decoder(info, start=start_s or None, end_s=end_s + _SAME_S)
    pictures = ahead(_pictures(decoder, info, rows, within, scale), _AHEAD)
    options = {"movflags": "faststart"}
    with (
        closing(pictures),  # type: ignore[type-var]  # a generator
        av.open(str(video), "w", format="mp4", options=options) as container,
    ):
        encoder: _Encoder | None = None
        for frame, source, picture in pictures:
            encoder = encoder or _Encoder(container, source, picture)
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
        why = f": {decoder.error}" if decoder.error else ""
        raise RenderError(
            f"{info.relative_path}: no frame to draw; the source has none of the tracked frames "
            f"from {start_s:.2f} to {end_s:.2f} s{why}"
        )
    _contact_sheet(tiles).save(sheet)
    missing = len(within) - written
    return Overlay(
        written, missing, artist.boxes_drawn, len(tiles), decoder.error if missing else None
    )


def _pictures(
    decoder: Decoder, info: VideoInfo, rows: OverlayRows, within: range, scale: int
) -> Iterator[tuple[int, VideoFrame, Planes]]:
    """Positions of tracked frames with the stored picture and a copy to draw on."""
    scaler = VideoReformatter()
    at = within.start
    for _, time_s, picture in decoder.frames():
        # Frames are told by their times: after a seek their numbers begin anew.
        while at < within.stop and rows.time_s[at] < time_s - _SAME_S:
            at += 1
        if at == within.stop:
            return
        if rows.time_s[at] > time_s + _SAME_S:
            continue
        yield at, picture, Planes.of(picture, scale * info.height, scale * info.width, scaler)
        at += 1


class _Encoder:
    """Encodes pictures into a container, each at its own time."""

    def __init__(self, container: Any, source: VideoFrame, picture: Planes) -> None:
        options = {"crf": "23", "preset": "superfast", "g": str(_KEY_EVERY)}
        self._container = container
        self._stream = stream = container.add_stream("libx264", options=options)
        stream.height, stream.width = picture.luma.shape
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = _TIME_BASE
        # The values of the source are kept, so they mean the same colours.
        if not source.format.is_rgb:
            stream.codec_context.colorspace = source.colorspace
            stream.codec_context.color_primaries = source.color_primaries
            stream.codec_context.color_trc = source.color_trc
        self._last = -1

    def write(self, picture: Planes, time_s: float) -> None:
        """Encode a picture that is shown from this time on."""
        frame = picture.frame()
        # Players need increasing times; in a damaged file two frames may have the same one.
        self._last = max(self._last + 1, round(time_s / _TIME_BASE))
        frame.pts, frame.time_base = self._last, _TIME_BASE
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what the encoder holds back."""
        self._container.mux(self._stream.encode(None))


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
