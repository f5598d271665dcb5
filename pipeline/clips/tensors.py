"""Frames and labels of a clip as tensors.

Shapes: T frames in a clip, H and W size of the canvas.
"""

from collections.abc import Sequence

import numpy as np
import torch

from pipeline.clips.labels import Labels


def on_canvas(frames: Sequence[np.ndarray], canvas: tuple[int, int]) -> torch.Tensor:
    """Place frames (h, w, 3) of one size at the top left of black canvases (T, 3, H, W) uint8."""
    height, width = frames[0].shape[:2]
    images = np.zeros((len(frames), 3, *canvas), np.uint8)
    for image, frame in zip(images, frames, strict=True):
        image[:, :height, :width] = frame.transpose(2, 0, 1)
    return torch.from_numpy(images)


def padded_labels(labels: Sequence[Labels], most: int) -> dict[str, torch.Tensor]:
    """Labels of T frames, padded to `most` objects; of more objects, ignored ones are dropped."""
    length = len(labels)
    boxes = np.zeros((length, most, 4), np.float32)
    ids = np.full((length, most), -1, np.int64)
    classes = np.zeros((length, most), np.int64)
    ignore, extent = np.zeros((length, most), bool), np.zeros((length, most), np.uint8)
    for t, given in enumerate(labels):
        kept = given.chosen(np.argsort(given.ignore, kind="stable")[:most])
        n = len(kept)
        boxes[t, :n], ids[t, :n], classes[t, :n] = kept.boxes, kept.ids, kept.classes
        ignore[t, :n], extent[t, :n] = kept.ignore, kept.extent
    arrays = {"boxes": boxes, "ids": ids, "labels": classes, "ignore": ignore, "extent": extent}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
