"""Frames of an undamaged video by their index, for packing training data."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from io import BytesIO
from types import ModuleType
from unittest.mock import patch

import numpy as np

from pipeline.storage.files import read_bytes
from pipeline.video.errors import DecodeError

_CHANNELS = 3


def read_frames(uri: str, indices: Sequence[int], width: int, height: int) -> np.ndarray:
    """Read chosen frames by index, upright, scaled to width x height without keeping the aspect.

    For packing training data. The whole file is read into memory and must be undamaged. Pictures
    stored mirrored come out turned by 180 degrees instead.

    Returns:
        (N, height, width, 3) uint8 RGB in the order of `indices`.

    Raises:
        DecodeError: the file cannot be decoded, or an index is not in it.
    """
    decord = _decord()
    try:
        # decord gets bytes and no path, so it can open no other file. It applies the rotation.
        reader = decord.VideoReader(BytesIO(read_bytes(uri)), width=width, height=height)
        if reader[0].shape[2] == _CHANNELS:
            frames: np.ndarray = reader.get_batch(list(indices)).asnumpy()
        else:
            frames = np.stack([_unpadded(reader[i].asnumpy()) for i in indices])
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        raise DecodeError(f"cannot read frames of {uri}: {error}") from error
    return frames


def _unpadded(frame: np.ndarray) -> np.ndarray:
    """Remove the row padding that decord has taken for further channels: (h, w, 3).

    FFmpeg pads rows for the processor's vector instructions. If a padded row is a multiple of the
    width, decord 3 takes the padding for channels, and cannot copy such frames as a batch.
    """
    height, width = frame.shape[:2]
    rows = frame.reshape(height, -1)[:, : width * _CHANNELS]
    return np.ascontiguousarray(rows.reshape(height, width, _CHANNELS))


def _decord() -> ModuleType:
    """The package decord, imported without the NVIDIA libraries that it loads by default.

    One of these is NVBLAS. It replaces the BLAS of torch in the whole process and crashes without
    a configuration, in the first convolution of one picture in one thread.
    """
    with patch.object(importlib.util, "find_spec", return_value=None):
        return importlib.import_module("decord")
