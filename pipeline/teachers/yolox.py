"""YOLOX as teacher: the pyramid of a detector that was trained on far more pictures.

The network runs in OpenVINO on the CPU, also where the student is on a GPU. Dense features are the
three levels that enter its head, the pooled vector is their mean over the picture.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from model.net.padding import map_masks, valid_positions
from model.teach.config import YOLOX
from model.teach.teacher import (
    STRIDE,
    TeacherError,
    TeacherFeatures,
    TeacherInfo,
    check_canvas,
    resized,
)
from pipeline.teachers.onnx_files import compiled, network_id, read_network, require
from pipeline.teachers.yolox_graph import find_pyramid

_PAD = 114  # grey level of padding in its training
_SIZES = 8  # canvas sizes whose networks are kept


class YoloxTeacher:
    """A YOLOX with raw grid output.

    Args:
        path: ONNX file.
        device: where features go.

    Raises:
        TeacherError: no such file, it is no YOLOX, or a package is missing.
    """

    def __init__(self, path: str, device: torch.device | str = "cpu") -> None:
        identity = network_id(YOLOX, path)
        require(YOLOX, "onnx")
        self._network = _cut(read_network(YOLOX, path), find_pyramid(path))
        self._device = torch.device(device)
        # Each frame is computed alone, so its features do not depend on the rest of the batch.
        self._request = lru_cache(_SIZES)(self._compiled)
        widths = tuple(x.get_partial_shape()[1].get_length() for x in self._network.outputs)
        licence = "YOLOX is Apache-2.0; its weights are from a local file, trained on COCO"
        self.info = TeacherInfo(identity, widths, sum(widths), licence)

    @torch.no_grad()
    def __call__(self, images: Tensor, valid: Tensor) -> TeacherFeatures:
        """See `Teacher`."""
        check_canvas(images)
        height, width = images.shape[2:]
        seen = valid_positions(valid, (height, width), 1)[:, None]
        pixels = torch.where(seen, images.flip(1), _PAD).float().cpu().numpy()
        request = self._request(height, width)
        frames = [list(request.infer([frame[None]]).values()) for frame in pixels]
        pyramid = [
            torch.cat([torch.from_numpy(x) for x in level]).to(self._device)
            for level in zip(*frames, strict=True)
        ]
        masks = map_masks(pyramid, valid)
        grid = (height // STRIDE, width // STRIDE)
        return TeacherFeatures(
            torch.cat([resized(x, grid) for x in pyramid], dim=1),
            torch.cat([_mean(x, mask) for x, mask in zip(pyramid, masks, strict=True)], dim=1),
            valid_positions(valid, grid, STRIDE),
        )

    def _compiled(self, height: int, width: int) -> Any:
        """An inference request for one frame of a canvas."""
        network = self._network.clone()
        try:
            network.reshape([1, 3, height, width])
            return compiled(network)
        except RuntimeError as error:
            raise TeacherError(
                f"teacher {self.info.id} cannot take a canvas of {height} x {width} pixels "
                f"({error}); give another canvas or another teacher"
            ) from error


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean (N, C) of a map (N, C, h, w) over the positions of a mask (N, h, w)."""
    share = mask[:, None].to(x.dtype)
    return (x * share).sum((2, 3)) / share.sum((2, 3)).clamp(min=1)


def _cut(network: Any, names: tuple[str, ...]) -> Any:
    """The part of a network that computes these tensors, in this order, of any input size."""
    import openvino

    tensors = {
        name: output
        for op in network.get_ordered_ops()
        for output in op.outputs()
        for name in output.get_names()
    }
    part = openvino.Model([tensors[name] for name in names], network.get_parameters(), YOLOX)
    part.reshape([1, 3, -1, -1])
    return part
