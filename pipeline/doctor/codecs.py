"""Codecs: a tiny clip of each is made and decoded, where this machine can make one."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from pipeline.doctor.config import DoctorConfig
from pipeline.doctor.finding import Finding, ok, problem, warning

_FRAMES, _WIDTH, _HEIGHT = 5, 64, 48
_BROWSER = "libx264"  # for overlays and copies that browsers play
_INSTALL = "install PyAV from its wheel, which brings these codecs: pip install --upgrade av"


@dataclass(frozen=True, slots=True)
class Codec:
    """A codec of videos.

    Attributes:
        name: For people.
        decoder: Name of the decoder.
        encoders: Names of encoders, of which the first that is there makes the clip.
        container: Of the clip.
    """

    name: str
    decoder: str
    encoders: tuple[str, ...]
    container: str = "mp4"


CODECS = (
    Codec("H.264", "h264", ("libx264", "libopenh264")),
    Codec("H.265", "hevc", ("libx265",)),
    Codec("VP9", "vp9", ("libvpx-vp9",), "webm"),
    Codec("AV1", "av1", ("libsvtav1", "libaom-av1"), "matroska"),
    Codec("MPEG-4", "mpeg4", ("mpeg4",)),
    Codec("MJPEG", "mjpeg", ("mjpeg",), "avi"),
)


def check_codecs(config: DoctorConfig) -> Iterable[Finding]:
    """Decode a clip of each codec, and find the encoder of overlays."""
    for codec in CODECS:
        yield decoded(codec)
    yield browser_encoder(_BROWSER)


def decoded(codec: Codec) -> Finding:
    """Whether a clip of a codec can be decoded."""
    import av

    name = f"codec {codec.name}"
    if not _has(codec.decoder, "r"):
        return problem(name, f"there is no decoder {codec.decoder}", _INSTALL)
    encoder = next((each for each in codec.encoders if _has(each, "w")), None)
    if encoder is None:
        return ok(name, f"decoder {codec.decoder} is there; not tried, because nothing encodes it")
    try:
        clip = _clip(encoder, codec.container)
    except (av.FFmpegError, ValueError) as error:
        return ok(name, f"decoder {codec.decoder} is there; not tried: {encoder}: {error}")
    try:
        with av.open(clip, "r") as container:
            frames = len(list(container.decode(video=0)))
    except av.FFmpegError as error:
        return problem(name, f"a clip made here cannot be decoded: {error}", _INSTALL)
    if frames != _FRAMES:
        return problem(name, f"{frames} of {_FRAMES} frames of a clip are decoded", _INSTALL)
    return ok(name, f"a clip of {encoder} is decoded")


def browser_encoder(encoder: str) -> Finding:
    """Whether overlays and copies can be made that browsers play."""
    name = "overlays"
    if not _has(encoder, "w"):
        return warning(name, f"no encoder {encoder}: browsers would not play overlays", _INSTALL)
    return ok(name, f"{encoder} is there, whose H.264 browsers play")


def _has(name: str, mode: str) -> bool:
    import av

    try:
        av.codec.Codec(name, cast(Any, mode))
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def _clip(encoder: str, container: str) -> io.BytesIO:
    """A clip in memory."""
    import av
    import numpy as np

    clip = io.BytesIO()
    with av.open(clip, "w", format=container) as output:
        stream = cast(Any, output.add_stream(encoder, rate=25))
        stream.width, stream.height = _WIDTH, _HEIGHT
        stream.pix_fmt = "yuvj420p" if encoder == "mjpeg" else "yuv420p"
        for number in range(_FRAMES):
            grey = np.full((_HEIGHT, _WIDTH, 3), 40 * number, np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        output.mux(stream.encode(None))
    clip.seek(0)
    return clip
