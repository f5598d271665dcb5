"""What the player of a page plays: the original where a browser can, or a copy in H.264."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import av
from av.video.reformatter import VideoReformatter

from pipeline.storage import files as storage
from pipeline.storage.file_systems import resolve
from pipeline.storage.secrets import mask_secrets
from pipeline.video.decode import iterate_frames
from pipeline.video.errors import DecodeError
from pipeline.video.info import VideoInfo
from pipeline.video.probe import ProbeError, open_video

_PLAYED = {
    ".mp4": ("h264", "av1", "vp9"),
    ".m4v": ("h264", "av1"),
    ".mov": ("h264",),
    ".webm": ("vp8", "vp9", "av1"),
}
"""Codecs that Chromium, Firefox and Safari play, by extension of the file."""

_PIXELS = ("yuv420p", "yuvj420p")
COPY_HEIGHT = 720
"""Lines of a copy, at most."""
_TIME_BASE = Fraction(1, 90_000)


@dataclass(frozen=True, slots=True)
class Playable:
    """What a page can play.

    Attributes:
        source: address for the page's player, relative to the page; None if nothing can be played.
        note: what is played, or why nothing is and what to do.
        offset_s: what the browser's time is later than `time_s` of the tables.
    """

    source: str | None
    note: str
    offset_s: float = 0.0


class OutOfTimeError(TimeoutError):
    """The time for copies is used up."""


def browser_plays(info: VideoInfo) -> bool:
    """Whether all common browsers play a file of this kind."""
    codecs = _PLAYED.get(PurePosixPath(info.relative_path).suffix.lower(), ())
    return info.codec in codecs and info.pixel_format in _PIXELS


def missing_source(info: VideoInfo) -> str | None:
    """Where a video was looked for if it is not there, and what to do; None if it is there."""
    try:
        if storage.exists(info.uri):
            return None
    except storage.StorageError as error:
        return f"The video cannot be reached: {mask_secrets(str(error))}"
    return (
        f"The video is not where it was tracked: {mask_secrets(info.uri)}. Put it there, or mount "
        "that disk, then try again."
    )


def playable(info: VideoInfo, folder: str, player: str, deadline: float | None = None) -> Playable:
    """Find what the page of a video can play, and make a copy where the setting asks for one.

    Args:
        info: the video.
        folder: folder or URL of the page; a copy is written beside it.
        player: `player` of the settings.
        deadline: end of the time for copies, by `time.monotonic`.

    Raises:
        StorageError: the folder cannot be written.
    """
    shown = mask_secrets(info.uri)
    if reason := missing_source(info):
        return Playable(None, reason)
    plays, link = browser_plays(info), relative_link(info.uri, folder)
    if plays and link is not None and player != "copy":
        return Playable(link, f"Played from {shown}.", _offset_s(info))
    if player == "link":
        reason = (
            "the video or the page lies in a bucket"
            if plays
            else f"not every browser plays a file like this ({info.codec}, {info.container})"
        )
        return Playable(None, f"No player: {reason}. vsdmot report OUTPUT makes a copy that plays.")
    try:
        if plays:
            name = "video" + PurePosixPath(info.relative_path).suffix.lower()
            _copy(info, f"{folder}/{name}")
            return Playable(name, f"A copy of {shown}.", _offset_s(info))
        encode(info, f"{folder}/video.mp4", deadline)
    except (DecodeError, av.FFmpegError) as error:
        return Playable(None, f"No copy could be made of {shown}: {mask_secrets(str(error))}")
    except OutOfTimeError:
        return Playable(
            None, "No copy was made in the time given. vsdmot report OUTPUT without seconds= does."
        )
    return Playable(
        "video.mp4", f"A copy in H.264 without sound, at most {COPY_HEIGHT} lines, of {shown}."
    )


def relative_link(uri: str, folder: str) -> str | None:
    """Address of a local file for a page in a local folder; None where either is remote."""
    (fs, path), (there, place) = resolve(uri), resolve(folder)
    if any("file" not in _protocols(system) for system in (fs, there)):
        return None
    return quote(os.path.relpath(os.path.realpath(path), os.path.realpath(place)))


def encode(info: VideoInfo, target: str, deadline: float | None = None) -> None:
    """Write an H.264 copy in mp4, each frame at its `time_s`; an existing one is kept.

    The id of a video holds its content, so a copy in the folder of this id is of the same content.

    Raises:
        DecodeError: the video cannot be decoded.
        OutOfTimeError: the deadline has passed; nothing is written.
        StorageError: the video cannot be read, or the copy cannot be written.
    """
    if storage.exists(target):
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "video.mp4"
        options = {"movflags": "faststart"}
        with av.open(str(path), "w", format="mp4", options=options) as container:
            for packet in _packets(container, info, deadline):
                container.mux(packet)
        with path.open("rb") as file:
            storage.publish(target, file)


def _packets(container: Any, info: VideoInfo, deadline: float | None) -> Iterator[Any]:
    scale = min(1.0, COPY_HEIGHT / info.height)
    width, height = (max(2, round(n * scale / 2) * 2) for n in (info.width, info.height))
    options = {"crf": "26", "preset": "veryfast", "g": "50"}
    stream = container.add_stream("libx264", options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.time_base = stream.codec_context.time_base = _TIME_BASE
    scaler = VideoReformatter()
    last = -1
    for _, time_s, picture in iterate_frames(info):
        if deadline is not None and time.monotonic() > deadline:
            raise OutOfTimeError(info.relative_path)
        frame = scaler.reformat(
            av.VideoFrame.from_ndarray(picture, format="rgb24"), width, height, "yuv420p"
        )
        # Players need increasing times; in a damaged file two frames may have the same one.
        last = max(last + 1, round(time_s / _TIME_BASE))
        frame.pts, frame.time_base = last, _TIME_BASE
        yield from stream.encode(frame)
    yield from stream.encode(None)


def _copy(info: VideoInfo, target: str) -> None:
    if storage.exists(target):
        return
    with tempfile.TemporaryFile() as file:
        with storage.open_binary(info.uri) as source:
            while data := source.read(1 << 22):
                file.write(data)
        storage.publish(target, file)


def _offset_s(info: VideoInfo) -> float:
    """Seconds by which the pictures begin after the container, whose clock a browser shows."""
    try:
        with open_video(info.uri) as (container, stream, _):
            if stream.start_time is None or container.start_time is None:
                return 0.0
            start = float(stream.start_time * (stream.time_base or 0))
            return max(0.0, start - container.start_time / av.time_base)
    except (ProbeError, storage.StorageError):
        return 0.0


def _protocols(fs: Any) -> tuple[str, ...]:
    return fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)
