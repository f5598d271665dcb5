"""A copy of a video in which people are hidden, and its pictures, for pages that may be shown."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path

import av
from av.video.reformatter import VideoReformatter

from pipeline.report.config import Blur
from pipeline.report.overlays.ahead import ahead
from pipeline.report.overlays.hidden import Hidden
from pipeline.report.overlays.rows import Array, OverlayRows
from pipeline.report.overlays.stream import Encoder, Pictures
from pipeline.report.playable import COPY_HEIGHT, OutOfTimeError
from pipeline.video.info import VideoInfo

_AHEAD = 4  # pictures decoded ahead


def blurred_pictures(
    info: VideoInfo,
    rows: OverlayRows,
    blur: Blur,
    times_s: Collection[float],
    video: Path,
    deadline: float | None = None,
) -> Iterator[tuple[float, Array]]:
    """Write an H.264 copy in mp4 with people hidden; yield its pictures at some times on the way.

    Nothing of the source is in the pictures but what is in the copy. The copy has the tracked
    frames alone, because only their boxes are known, each at its `time_s`. It is whole when the
    iterator ends.

    Args:
        info: the source.
        rows: its rows, at least one frame.
        blur: what of people is hidden.
        times_s: times of the pictures, as in the rows.
        video: file to write.
        deadline: end of the time for it, by `time.monotonic`; None for no end.

    Yields:
        The time, and the picture (H, W, 3) uint8 RGB of the size of the video.

    Raises:
        OutOfTimeError: the deadline has passed.
        DecodeError: the source cannot be decoded.
        StorageError: the source cannot be read.
    """
    scale = min(1.0, COPY_HEIGHT / info.height)
    height, width = (max(2, round(side * scale)) for side in (info.height, info.width))
    hidden, wanted, scaler = Hidden(rows, blur), frozenset(times_s), VideoReformatter()
    tracked = Pictures(info, rows, range(len(rows.time_s)), height, width)
    pictures = ahead(tracked, _AHEAD)
    with (
        closing(pictures),  # type: ignore[type-var]  # a generator
        av.open(str(video), "w", format="mp4", options={"movflags": "faststart"}) as container,
    ):
        encoder: Encoder | None = None
        for frame, source, picture in pictures:
            if deadline is not None and time.monotonic() > deadline:
                raise OutOfTimeError(info.relative_path)
            encoder = encoder or Encoder(container, source, picture)
            hidden.hide(picture, frame, scale)
            now = float(rows.time_s[frame])
            encoder.write(picture, now)
            if now in wanted:
                whole = scaler.reformat(picture.frame(), info.width, info.height, "rgb24")
                yield now, whole.to_ndarray()
        if encoder is not None:
            encoder.close()
