"""One decoded picture: upright on a canvas, and its luma."""

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter

from model.net.letterbox import Letterbox
from model.net.quality import sample_patches
from pipeline.video.probe import orientation

# Luma of limited range, 16 to 235, on the full scale.
_FULL_RANGE = (((np.arange(256) - 16) * 255 + 109) // 219).clip(0, 255).astype(np.uint8)


def fit(picture: VideoFrame, box: Letterbox, scaler: VideoReformatter) -> np.ndarray:
    """Return a stored picture upright on the letterbox's canvas.

    libav scales it before it is turned, which is faster. A picture of another size than the
    letterbox's source (the size may change in mid-stream) is scaled to the same area.

    Returns:
        (input_height, input_width, 3) uint8 RGB, zero beyond the picture.
    """
    height, width = box.scaled_height, box.scaled_width
    turns, mirrored = orientation(picture)
    turned = turns % 2
    small = scaler.reformat(
        picture,
        width=height if turned else width,
        height=width if turned else height,
        format="rgb24",
        interpolation="BILINEAR",
        threads=1,
    )
    canvas = np.zeros((box.input_height, box.input_width, 3), np.uint8)
    canvas[:height, :width] = _upright(small.to_ndarray(), turns, mirrored)
    return canvas


def luma_patches(picture: VideoFrame) -> np.ndarray:
    """Return `sample_patches` of a stored picture, (8, 64, 64) uint8 on the full scale 0 to 255.

    Training and degraded frames are on this scale, so quality is always measured on one scale.
    """
    plane, limited = stored_luma(picture)
    patches = sample_patches(plane)
    return _FULL_RANGE[patches] if limited else patches


def stored_luma(picture: VideoFrame) -> tuple[np.ndarray, bool]:
    """Return the luma plane (H, W) uint8, a view where the format allows it, and its range.

    Returns:
        The plane, and whether its range is limited (16 is black, 235 white). YUV is limited
        where the file does not say otherwise.
    """
    layout = picture.format
    first = layout.components[0]
    deep = 8 < first.bits <= 16 and layout.name.endswith("le")
    if layout.name.startswith(("yuv4", "yuvj4", "gray")) and (first.bits == 8 or deep):
        kind = np.dtype("<u2" if deep else "u1")
        plane = picture.planes[0]
        stride = plane.line_size // kind.itemsize
        values = np.frombuffer(memoryview(plane), kind).reshape(-1, stride)
        values = values[: picture.height, : picture.width]
        limited = layout.name.startswith("yuv4") and picture.color_range != ColorRange.JPEG
        return (values >> (first.bits - 8)).astype(np.uint8) if deep else values, limited
    # libav converts grey to full range.
    return picture.reformat(format="gray").to_ndarray(), False


def _upright(image: np.ndarray, turns: int, mirrored: bool) -> np.ndarray:
    return np.rot90(image[:, ::-1] if mirrored else image, -turns)
