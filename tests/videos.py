"""Real video files for the tests, whole and broken in every way an archive breaks them.

Every frame shows a white rectangle on grey. Its place is a function of the frame number, and
the number itself is coded in black bars in its lower half, so that a test can tell which frame
it was given, where things are in it, and which way up it is.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream

BITS = 8
GREY, WHITE = 96, 235

# tkhd matrices of ISO/IEC 14496-12 by what a player does with the stored picture. A stored
# point (x, y) is shown at (a x + c y, b x + d y): row a, b and row c, d below, 16.16 fixed point.
TURN_CLOCKWISE = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}
MIRROR = (-1, 0, 0, 1)


def rectangle(number: int, width: int, height: int) -> tuple[int, int, int, int]:
    """Corners x0, y0, x1, y1 of the rectangle in the stored picture of this frame."""
    side_x, side_y = max(1, width // 3), max(1, height // 3)
    x = (2 * number) % max(1, width // 2 - side_x)
    y = height // 8
    return x, y, x + side_x, y + side_y


def picture(number: int, width: int, height: int) -> np.ndarray:
    """The stored picture of a frame: (height, width, 3) uint8 RGB."""
    image = np.full((height, width, 3), GREY, np.uint8)
    x0, y0, x1, y1 = rectangle(number, width, height)
    image[y0:y1, x0:x1] = WHITE
    edges = np.linspace(x0, x1, BITS + 1).round().astype(int)
    for bit in range(BITS):
        if number >> bit & 1:
            image[(y0 + y1) // 2 : y1, edges[bit] : edges[bit + 1]] = 0
    return image


def read_number(image: np.ndarray, number_of_bits: int = BITS) -> int:
    """Read the coded frame number back out of an upright picture (height, width, 3)."""
    grey = image.mean(axis=2)
    height, width = grey.shape
    y0, side_y, side_x = height / 8, height / 3, width / 3
    top = grey[round(y0 + 0.15 * side_y) : round(y0 + 0.35 * side_y)].mean(axis=0)
    x0 = int(np.argmax(top > (GREY + WHITE) / 2))
    bars = grey[round(y0 + 0.65 * side_y) : round(y0 + 0.85 * side_y)].mean(axis=0)
    number = 0
    for bit in range(number_of_bits):
        centre = min(width - 1, int(x0 + (bit + 0.5) * side_x / number_of_bits))
        number |= int(bars[centre] < WHITE / 2) << bit
    return number


def write_video(
    path: Path,
    frames: int = 24,
    width: int = 160,
    height: int = 96,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    rate: int = 25,
    milliseconds: Sequence[int] | None = None,
    container_options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
    container: str | None = None,
) -> Path:
    """Write a video of `frames` pictures; `milliseconds` gives each its own time."""
    options = codec_options if codec_options is not None else _default_options(codec)
    with av.open(str(path), "w", format=container, options=container_options or {}) as output:
        stream = cast(VideoStream, output.add_stream(codec, rate=rate, options=options))
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        if milliseconds is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, width, height), format="rgb24")
            frame = frame.reformat(format=pixel_format)
            if milliseconds is None:
                frame.pts, frame.time_base = number, Fraction(1, rate)
            else:
                frame.pts, frame.time_base = milliseconds[number], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def _default_options(codec: str) -> dict[str, str]:
    if codec == "libx264":
        return {"crf": "12", "preset": "ultrafast", "g": "12", "bf": "0"}
    if codec == "mpeg4":
        return {"qmin": "2", "qmax": "3"}
    return {}


def set_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Give the first track of an mp4 this display matrix (a, b, c, d in whole numbers)."""
    a, b, c, d = (value << 16 for value in matrix)
    values = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], dtype=">i4").tobytes()
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = values
    path.write_bytes(bytes(data))
    return path


def upright(stored: np.ndarray, clockwise: int) -> np.ndarray:
    """What a player shows of a stored picture turned clockwise by this many degrees."""
    return np.rot90(stored, -clockwise // 90)


def cut(path: Path, share: float) -> Path:
    """Keep only the first `share` of a file's bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def damage(path: Path, start: float, stop: float, seed: int = 0) -> Path:
    """Overwrite the bytes between two shares of the file with noise."""
    data = bytearray(path.read_bytes())
    low, high = int(len(data) * start), int(len(data) * stop)
    data[low:high] = np.random.default_rng(seed).integers(0, 256, high - low, np.uint8).tobytes()
    path.write_bytes(bytes(data))
    return path


def write_unsupported(path: Path) -> Path:
    """An mp4 whose sample entry names a codec that nobody has written."""
    write_video(path, frames=4)
    data = path.read_bytes()
    entry = data.index(b"avc1", data.index(b"stsd"))
    path.write_bytes(data[:entry] + b"zzzz" + data[entry + 4 :])
    return path


def write_audio(path: Path) -> Path:
    """An audio track and no picture."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 16000, 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def write_text(path: Path) -> Path:
    """Words under the name of a video."""
    path.write_text("This is not a video.\n" * 40)
    return path


def write_empty(path: Path) -> Path:
    """A file of no bytes."""
    path.write_bytes(b"")
    return path
