"""One decoded picture: a part of it, upright on a canvas, and its luma."""

from fractions import Fraction

import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter

from model.net.letterbox import Letterbox
from model.net.quality import sample_patches
from pipeline.video.probe import orientation
from pipeline.video.region import Crop

# Luma of limited range, 16 to 235, on the full scale.
_FULL_RANGE = (((np.arange(256) - 16) * 255 + 109) // 219).clip(0, 255).astype(np.uint8)


class Cropper:
    """Cuts a rectangle of the displayed picture out of stored pictures, without copying pixels.

    A picture of another size than the header says is cut at the same shares of its sides.
    """

    def __init__(self, crop: Crop, height: int, width: int) -> None:
        """Take the rectangle, and the size of the displayed picture in whose pixels it is."""
        self._crop, self._size = crop, (height, width)
        self._graph = Graph()
        self._made_for: tuple[object, ...] = ()

    def cut(self, picture: VideoFrame) -> VideoFrame:
        """Return the part of a stored picture; it is stored the same way up."""
        place = stored_rectangle(picture, self._crop, *self._size)
        kind = (picture.format.name, picture.width, picture.height, picture.color_range, place)
        if kind != self._made_for:
            self._graph, self._made_for = _crop_graph(picture, *place), kind
        self._graph.push(picture)
        part = self._graph.pull()
        assert isinstance(part, VideoFrame)
        return part


def _crop_graph(picture: VideoFrame, left: int, top: int, width: int, height: int) -> Graph:
    """A filter of libav that takes such pictures and gives a part of them."""
    graph = Graph()
    graph.threads = 1  # a crop has no work for more, and each video has a graph
    source = graph.add_buffer(
        width=picture.width,
        height=picture.height,
        format=picture.format,
        time_base=picture.time_base or Fraction(1, 1000),
    )
    # Without `exact` the part would be rounded to whole samples of colour.
    crop = graph.add("crop", f"w={width}:h={height}:x={left}:y={top}:exact=1")
    sink = graph.add("buffersink")
    source.link_to(crop)
    crop.link_to(sink)
    graph.configure()
    return graph


def stored_rectangle(
    picture: VideoFrame, crop: Crop, height: int, width: int
) -> tuple[int, int, int, int]:
    """Return left, top, width and height in a stored picture of a part of the displayed one.

    Args:
        picture: as stored.
        crop: the part.
        height, width: of the displayed picture in whose pixels the part is given.
    """
    turns, mirrored = orientation(picture)
    w, h = picture.width, picture.height
    shown = (h, w) if turns % 2 else (w, h)
    x0, x1 = (round(x * shown[0] / width) for x in (crop.left, crop.left + crop.width))
    y0, y1 = (round(y * shown[1] / height) for y in (crop.top, crop.top + crop.height))
    # Undo the clockwise turns, then the mirror.
    x0, y0, x1, y1 = (
        (x0, y0, x1, y1),
        (y0, h - x1, y1, h - x0),
        (w - x1, h - y1, w - x0, h - y0),
        (w - y1, x0, w - y0, x1),
    )[turns]
    if mirrored:
        x0, x1 = w - x1, w - x0
    return x0, y0, max(1, x1 - x0), max(1, y1 - y0)


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
