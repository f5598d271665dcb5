"""Videos that are made for a measure: long ones, and quiet ones."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream

from pipeline.video.decode import iterate_frames
from pipeline.video.info import VideoInfo

_SCENES = 24  # frames whose median shows the place without people
_SENSOR_NOISE = 2.0  # standard deviation in grey levels of a small camera by day
_LOOP = 4  # pictures of noise, used in turn
_MOVING = 100  # pictures of a clip that are held in RAM
_KEY_EVERY_S = 2  # of a camera: seconds between pictures that can be decoded by themselves


def quiet_video(
    path: Path, clip: VideoInfo, seconds: float, quiet: float = 0.8, seed: int = 0
) -> float:
    """Write a video of a fixed camera in which nothing moves for most of the time.

    The clip is played again and again. Before each time the empty place is shown, with noise of a
    sensor, for as long as makes the share of quiet frames right.

    Args:
        path: File to write, H.264 in MP4.
        clip: A short video of a fixed camera.
        seconds: Length.
        quiet: Share of quiet frames, above 0 and below 1.
        seed: Of the noise.

    Returns:
        The true share of quiet frames.

    Raises:
        DecodeError, StorageError: The clip cannot be read.
    """
    moving = np.stack([picture for _, _, picture in iterate_frames(clip)])
    rate = Fraction(clip.fps or 25).limit_denominator(1000)
    shown = moving[:: max(1, len(moving) // _SCENES)]
    empty = np.median(shown, axis=0)
    random = np.random.default_rng(seed)
    noisy = [
        (empty + random.normal(0, _SENSOR_NOISE, empty.shape)).clip(0, 255).astype(np.uint8)
        for _ in range(_LOOP)
    ]
    total = round(seconds * rate)
    # Whole rounds of quiet and movement, at least one.
    rounds = max(1, round(total * (1 - quiet) / len(moving)))
    each = total // rounds
    busy = min(len(moving), max(1, round(each * (1 - quiet))))

    def frames() -> Iterator[np.ndarray]:
        for _ in range(rounds):
            for n in range(each - busy):
                yield noisy[n % _LOOP]
            yield from moving[:busy]

    _write(path, frames(), rate, "23")
    return 1 - busy / each


def moving_video(path: Path, clip: VideoInfo, seconds: float) -> None:
    """Write a video of the first frames of a clip, forwards and backwards, again and again.

    So people move all the time, and there is no cut, at which all tracks would end.

    Args:
        path: File to write, H.264 in MP4, with a keyframe every two seconds.
        clip: Any video.
        seconds: Length.

    Raises:
        DecodeError, StorageError: The clip cannot be read.
    """
    there = [picture for _, _, picture in islice(iterate_frames(clip), _MOVING)]
    back = there[-2:0:-1]
    rate = Fraction(clip.fps or 25).limit_denominator(1000)
    frames = islice(cycle([*there, *back]), round(seconds * rate))
    _write(path, frames, rate, "23", round(_KEY_EVERY_S * rate))


def long_video(
    path: Path, frames: int, rate: int, height: int = 96, width: int = 160, stands: int = 1
) -> None:
    """Write a video of a block that wanders over a grey ground: small, so that it is read fast.

    Only the first minute is encoded. Its packets are repeated with later times.

    Args:
        path: File to write, H.264 in MP4.
        frames: Length; a multiple of a minute's frames if it is longer.
        rate: Frames a second.
        height, width: Pixels.
        stands: Frames for which the block stands before it moves on.
    """

    def pictures() -> Iterator[np.ndarray]:
        for number in range(min(frames, minute)):
            picture = np.full((height, width, 3), 96, np.uint8)
            x = 2 * (number // stands) % (width - 24)
            picture[height // 4 : height // 4 + 48, x : x + 24] = 220
            yield picture

    minute = 60 * rate
    first = path.with_name(f"minute-{path.name}")
    _write(first, pictures(), Fraction(rate), "30")
    with av.open(str(first)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        packets = [p for p in source.demux(stream) if p.size]
        ticks = sum(p.duration or 0 for p in packets)
        stored = [(bytes(p), p.pts or 0, p.dts or 0, p.duration, p.is_keyframe) for p in packets]
        for n in range(-(-frames // len(stored))):
            for data, pts, dts, duration, key in islice(stored, frames - n * len(stored)):
                packet = av.Packet(data)
                packet.pts, packet.dts = pts + n * ticks, dts + n * ticks
                packet.duration, packet.time_base = duration or 0, stream.time_base or Fraction(1)
                packet.is_keyframe, packet.stream = key, copy
                target.mux(packet)
    first.unlink()


def _write(
    path: Path, pictures: Iterator[np.ndarray], rate: Fraction, crf: str, key_every: int = 250
) -> None:
    with av.open(str(path), "w") as output:
        options = {"crf": crf, "preset": "veryfast", "bf": "0", "g": str(key_every)}
        stream = cast(VideoStream, output.add_stream("libx264", rate=rate, options=options))
        stream.pix_fmt = "yuv420p"
        for number, picture in enumerate(pictures):
            height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
            if number == 0:
                stream.height, stream.width = height, width
            shown = np.ascontiguousarray(picture[:height, :width])
            output.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        output.mux(stream.encode(None))
