"""Tracked frames of a video as pictures to draw on, and an encoder for them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from pipeline.report.overlays.planes import Planes
from pipeline.report.overlays.rows import OverlayRows
from pipeline.video.decoder import Decoder
from pipeline.video.info import VideoInfo

_TIME_BASE = Fraction(1, 90_000)
_SAME_S = 1e-6  # two times that differ by less are of one frame
_KEY_EVERY = 50  # frames, so that a player can jump


class Pictures:
    """Iterates over tracked frames that the source has, once.

    Yields the position of the frame among the rows, the stored picture, and a copy to draw on.
    """

    def __init__(
        self, info: VideoInfo, rows: OverlayRows, within: range, height: int, width: int
    ) -> None:
        """Choose frames.

        Args:
            info: the source.
            rows: its rows.
            within: positions of the frames, not empty.
            height, width: of the copies, in pixels.
        """
        start_s, end_s = float(rows.time_s[within[0]]), float(rows.time_s[within[-1]])
        self._decoder = Decoder(info, start=start_s or None, end_s=end_s + _SAME_S)
        self._rows, self._within = rows, within
        self._size = height, width

    @property
    def error(self) -> str | None:
        """Why the source ended early; None if it did not."""
        return self._decoder.error

    def __iter__(self) -> Iterator[tuple[int, VideoFrame, Planes]]:
        """Decode.

        Raises:
            DecodeError: the source cannot be decoded.
            StorageError: the source cannot be read.
        """
        scaler = VideoReformatter()
        at, times = self._within.start, self._rows.time_s
        for _, time_s, picture in self._decoder.frames():
            # Frames are told by their times: after a seek their numbers begin anew.
            while at < self._within.stop and times[at] < time_s - _SAME_S:
                at += 1
            if at == self._within.stop:
                return
            if times[at] > time_s + _SAME_S:
                continue
            yield at, picture, Planes.of(picture, *self._size, scaler)
            at += 1


class Encoder:
    """Encodes pictures into a container, each at its own time."""

    def __init__(self, container: Any, source: VideoFrame, picture: Planes) -> None:
        """Add a stream.

        Args:
            container: open to write.
            source: a stored picture, whose values keep their meaning.
            picture: of the size of all.
        """
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
