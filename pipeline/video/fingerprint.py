"""A number that tells whether two decodings gave the same pictures."""

import zlib

import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

# Codecs work on blocks of 16 rows or more, so this looks at each of them. To look at all rows would
# cost as much as decoding.
_ROWS = slice(8, None, 16)


def fingerprint(picture: VideoFrame, before: int) -> int:
    """Return the fingerprint of a stored picture, and of all before it.

    Args:
        picture: the next picture.
        before: fingerprint of the pictures before it; 0 if there are none.
    """
    if any(plane.line_size <= 0 for plane in picture.planes):  # stored upside down
        picture = picture.reformat(format="gray")
    value = zlib.crc32(f"{picture.format.name} {picture.width}x{picture.height}".encode(), before)
    for number, plane in enumerate(picture.planes):
        size = min(_row_bytes(picture.format, number, picture.width), plane.line_size)
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        rows = rows[: plane.height, :size]
        value = zlib.crc32(np.ascontiguousarray(rows[_ROWS] if len(rows) > 32 else rows), value)
    return value


def _row_bytes(layout: VideoFormat, plane: int, width: int) -> int:
    """Bytes of a plane's row that hold samples; those after them are undefined."""
    if not layout.is_planar:
        return width * layout.bits_per_pixel // 8
    here = [component for component in layout.components if component.plane == plane]
    return sum(component.width * -(-component.bits // 8) for component in here)
