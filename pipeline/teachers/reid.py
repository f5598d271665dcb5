"""A network that describes people (OSNet) as teacher of objects.

It sees each labelled person's clean picture alone. It runs in OpenVINO on the CPU, also where the
student is on a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import roi_align

from model.teach.config import REID
from model.teach.teacher import ObjectTeacherInfo, TeacherError
from pipeline.teachers.onnx_files import compiled, network_id, read_network

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class ReidTeacher:
    """A network from a picture (1, 3, h, w) of a person to a vector (1, E).

    Args:
        path: ONNX file. Pictures are RGB, normalised as for ImageNet.
        device: where vectors go.

    Raises:
        TeacherError: no such file, it is another network, or OpenVINO is not installed.
    """

    def __init__(self, path: str, device: torch.device | str = "cpu") -> None:
        identity = network_id(REID, path)
        network = read_network(REID, path)
        shapes = [x.get_partial_shape() for x in (*network.inputs, *network.outputs)]
        fixed = all(shape.is_static for shape in shapes)
        if not fixed or [len(s) for s in shapes] != [4, 2] or list(shapes[0])[:2] != [1, 3]:
            raise TeacherError(
                f"teacher.model={REID}: {path} has inputs and outputs {shapes}, but a network "
                "from (1, 3, height, width) to (1, width of the vector) is needed"
            )
        _, _, height, width = shapes[0].to_shape()
        self._size = (height, width)
        self._request, self._device = compiled(network), torch.device(device)
        licence = "unknown: a local file of a network that was trained to tell people apart"
        self.info = ObjectTeacherInfo(identity, shapes[1].to_shape()[1], licence)

    @torch.no_grad()
    def __call__(self, images: Tensor, frames: Tensor, boxes: Tensor) -> Tensor:
        """See `ObjectTeacher`."""
        if not len(boxes):
            return torch.zeros(0, self.info.dim, device=self._device)
        given = torch.cat([frames[:, None].float(), boxes.float()], 1).cpu()
        crops = roi_align(images.cpu().float(), given, self._size, sampling_ratio=1, aligned=True)
        mean, std = (torch.tensor(x).view(3, 1, 1) * 255 for x in (_MEAN, _STD))
        pictures = ((crops - mean) / std).numpy()
        found = [self._request.infer([picture[None]])[0] for picture in pictures]
        return torch.cat([torch.from_numpy(x) for x in found]).to(self._device)
