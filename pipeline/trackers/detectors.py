"""Adapters to person detectors of other projects, whose weights are not part of this one.

| file | format |
|---|---|
| `.onnx` | YOLOX with raw grid output (1, A, 85): BGR 0 to 255, letterbox of 114 at the top left |
| `.xml`, `.bin` | OpenVINO SSD output (1, 1, N, 7), as person-detection-retail-0013 |
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.ops import nms

from pipeline.inference.openvino_core import openvino_core

Array = np.ndarray[Any, Any]
Detector = Callable[[Array], tuple[Array, Array]]
"""(H, W, 3) uint8 RGB to boxes (N, 4) x, y, w, h in its pixels, and scores (N,)."""

LOWEST_SCORE = 0.01
_NMS_IOU = 0.65  # YOLOX's own
_PAD = 114
_PERSON = 0  # in YOLOX's COCO classes


class DetectorError(ValueError):
    """A detector's file cannot be used; the message says which, why, and what to do."""


def open_detector(path: str | Path) -> Detector:
    """The detector in a file, on one CPU thread.

    Raises:
        DetectorError: No such file, an unknown format, or a runtime that is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise DetectorError(f"{path}: no such detector; detectors=[NAME@FILE] names the file")
    kinds: dict[str, Callable[[Path], Detector]] = {".onnx": YoloxOnnx, ".xml": SsdOpenVino}
    if path.suffix not in kinds:
        raise DetectorError(f"{path}: expected .onnx (YOLOX) or .xml (OpenVINO SSD)")
    try:
        return kinds[path.suffix](path)
    except ImportError as error:
        raise DetectorError(f"{path}: needs {error.name}; pip install {error.name}") from error
    except (RuntimeError, ValueError) as error:
        raise DetectorError(f"{path}: cannot be opened: {error}") from error


def detector_files(path: str | Path) -> list[Path]:
    """All files that make a detector, for hashing."""
    path = Path(path)
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]


class YoloxOnnx:
    """A YOLOX in ONNX with raw grid output."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no common class
            raise DetectorError(f"{path}: cannot be opened: {error}") from error
        self._input = self._session.get_inputs()[0]
        outputs = self._session.get_outputs()[0].shape
        if len(self._input.shape) != 4 or len(outputs) != 3 or outputs[2] < 6:
            raise DetectorError(f"{path}: inputs {self._input.shape}, outputs {outputs}: no YOLOX")
        self.height, self.width = self._input.shape[2:]
        self._grid, self._stride = _yolox_grid(self.height, self.width)

    def __call__(self, picture: Array) -> tuple[Array, Array]:
        """See `Detector`."""
        height, width = picture.shape[:2]
        scale = min(self.height / height, self.width / width)
        size = (round(width * scale), round(height * scale))
        canvas = np.full((self.height, self.width, 3), _PAD, np.uint8)
        small = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR, reducing_gap=None)
        canvas[: size[1], : size[0]] = np.asarray(small)[..., ::-1]
        batch = canvas.transpose(2, 0, 1)[None].astype(np.float32)
        (raw,) = self._session.run(None, {self._input.name: batch})
        scores = raw[0, :, 4] * raw[0, :, 5 + _PERSON]
        keep = scores >= LOWEST_SCORE
        rows, scores = raw[0, keep], scores[keep]
        centre = (rows[:, :2] + self._grid[keep]) * self._stride[keep]
        side = np.exp(rows[:, 2:4]) * self._stride[keep]
        corners = np.concatenate([centre - side / 2, centre + side / 2], axis=1) / scale
        return _cleaned(corners, scores, height, width)


class SsdOpenVino:
    """A single-shot detector in OpenVINO's format."""

    def __init__(self, path: Path) -> None:
        core = openvino_core()
        self._model = core.compile_model(
            core.read_model(path),
            "CPU",
            {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"},
        )
        shape = list(self._model.input(0).shape)
        self.height, self.width = shape[2:]

    def __call__(self, picture: Array) -> tuple[Array, Array]:
        """See `Detector`."""
        height, width = picture.shape[:2]
        small = Image.fromarray(picture).resize(
            (self.width, self.height), Image.Resampling.BILINEAR
        )
        batch = np.asarray(small)[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32)
        found = self._model(batch)[0].reshape(-1, 7)
        ends = np.flatnonzero(found[:, 0] < 0)  # a row of image -1 ends the list
        found = found[: ends[0]] if len(ends) else found
        found = found[found[:, 2] >= LOWEST_SCORE]
        corners = found[:, 3:7] * np.array([width, height, width, height])
        return _cleaned(corners, found[:, 2], height, width)


def _cleaned(corners: Array, scores: Array, height: int, width: int) -> tuple[Array, Array]:
    """Without duplicates, clipped to the picture, as x, y, w, h."""
    corners = np.clip(corners, 0, [width, height, width, height])
    keep = nms(
        torch.from_numpy(np.ascontiguousarray(corners, np.float32)),
        torch.from_numpy(np.ascontiguousarray(scores, np.float32)),
        _NMS_IOU,
    ).numpy()
    corners, scores = corners[keep], scores[keep]
    size = corners[:, 2:] - corners[:, :2]
    solid = (size > 0).all(axis=1)
    return np.concatenate([corners[:, :2], size], axis=1)[solid], scores[solid]


def _yolox_grid(height: int, width: int) -> tuple[Array, Array]:
    grids, strides = [], []
    for stride in (8, 16, 32):
        x, y = np.meshgrid(np.arange(width // stride), np.arange(height // stride))
        grids.append(np.stack([x.ravel(), y.ravel()], axis=1))
        strides.append(np.full((x.size, 1), stride))
    return np.concatenate(grids), np.concatenate(strides)
