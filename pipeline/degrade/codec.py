"""Degradation by a video codec: encoding at a fixed quantiser with 4:2:0 chroma, and decoding.

The codec is H.264 by x264, or MPEG-4 part 2 where PyAV has no x264. Colours are converted by
Pillow in integers, so the result is as reproducible as the installed PyAV's encoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import av
import numpy as np
from PIL import Image

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

_CODEC_QP = (0, 30, 36, 41, 46, 51)
_CODEC_QSCALE = (0, 6, 12, 19, 25, 31)


def write_video(frames: Iterable[Pixels], severity: int, file: BinaryIO) -> None:
    """Encode frames, each (H, W, 3) uint8 RGB of one size, into `file` (Matroska)."""
    x264 = "libx264" in av.codecs_available
    stream: Any = None
    with av.open(file, "w", format="matroska") as writer:
        for frame in frames:
            height, width = frame.shape[:2]
            if stream is None:
                stream = writer.add_stream("libx264" if x264 else "mpeg4", rate=25)
                stream.height, stream.width = height + height % 2, width + width % 2
                stream.pix_fmt = "yuv420p"
                stream.codec_context.thread_count = 1
                stream.options = _options(severity, x264)
            pad = ((0, height % 2), (0, width % 2), (0, 0))
            planes = _to_yuv(np.pad(frame, pad, mode="edge"))
            writer.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        if stream is not None:
            writer.mux(stream.encode())


def read_video(file: BinaryIO, height: int, width: int) -> Iterator[Pixels]:
    """The frames that `write_video` wrote, cut to their size: (height, width, 3) uint8 RGB."""
    with av.open(file, "r") as reader:
        reader.streams.video[0].codec_context.thread_count = 1
        for decoded in reader.decode(video=0):
            planes = np.asarray(decoded.to_ndarray(), dtype=np.uint8)
            yield _to_rgb(planes)[:height, :width]


def _options(severity: int, x264: bool) -> dict[str, str]:
    if not x264:
        quality = str(_CODEC_QSCALE[severity])
        return {"qmin": quality, "qmax": quality, "g": "50", "flags": "+bitexact"}
    # One quantiser for all frames, so that I frames are no better than the others.
    flat = "ipratio=1:pbratio=1:bframes=0"
    quality = str(_CODEC_QP[severity])
    return {"qp": quality, "preset": "veryfast", "g": "50", "x264-params": flat}


def _to_yuv(frame: Pixels) -> Pixels:
    """RGB (H, W, 3) of even sizes to stacked 4:2:0 planes (3H/2, W), in integers."""
    luma, blue, red = Image.fromarray(frame).convert("YCbCr").split()
    planes = [np.asarray(plane).ravel() for plane in (luma, blue.reduce(2), red.reduce(2))]
    return np.concatenate(planes).reshape(-1, frame.shape[1])


def _to_rgb(planes: Pixels) -> Pixels:
    height, width = planes.shape[0] * 2 // 3, planes.shape[1]
    half = (height // 2, width // 2)
    blue, red = planes[height:].reshape(2, *half)
    full = [
        Image.fromarray(p).resize((width, height), Image.Resampling.BILINEAR) for p in (blue, red)
    ]
    luma = Image.fromarray(planes[:height])
    return np.asarray(Image.merge("YCbCr", [luma, *full]).convert("RGB"))
