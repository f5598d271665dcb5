"""What a teacher is: clean pictures in, features out. Teachers are used in training only.

A `Teacher` gives dense maps and a pooled vector of a frame. An `ObjectTeacher` gives a vector of
each object in it. `pipeline.teachers.load` builds them from settings.

Shapes: N frames, n objects, C channels, (h, w) the student's stride-16 map of an (H, W) canvas.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from torch import Tensor
from torch.nn import functional as F

from model.net.config import STRIDES

STRIDE = 16
"""Pixels of a position of the student's semantic map, to which dense maps are brought."""


class TeacherError(ValueError):
    """A teacher that cannot be built or does not fit; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class TeacherInfo:
    """Identity and shapes of a teacher.

    Attributes:
        id: model and weights, as `ViT-B-16/openai`; caches and checkpoints are valid for one id.
        levels: channels of each map in the dense features, finest first.
        pooled_dim: width of the pooled vector.
        licence: note on the licence of its weights, for the metadata of weights that learn from it.
    """

    id: str
    levels: tuple[int, ...]
    pooled_dim: int
    licence: str = field(default="not recorded", compare=False)

    @property
    def dense_dim(self) -> int:
        """Channels of the dense features."""
        return sum(self.levels)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Build from the values of `asdict`, as JSON gives them."""
        return cls(**{**values, "levels": tuple(values["levels"])})


@dataclass(frozen=True, slots=True)
class TeacherFeatures:
    """Features of N frames by a teacher, before normalisation.

    Attributes:
        dense: (N, C, h, w) float32 at stride 16.
        pooled: (N, Cp) float32.
        valid: (N, h, w) bool, False on padding.
    """

    dense: Tensor
    pooled: Tensor
    valid: Tensor

    def each(self, change: Callable[[Tensor], Tensor]) -> "TeacherFeatures":
        """The same with each tensor changed, such as moved to a device."""
        return TeacherFeatures(change(self.dense), change(self.pooled), change(self.valid))


class Teacher(Protocol):
    """Gives features of clean frames. It is frozen: no training changes it."""

    @property
    def info(self) -> TeacherInfo:
        """Identity and shapes."""

    def __call__(self, images: Tensor, valid: Tensor) -> TeacherFeatures:
        """Compute features.

        Args:
            images: (N, 3, H, W) RGB in 0..255 on the letterbox canvas, H and W multiples of 32.
            valid: (N, 2) height and width in pixels of the picture on the canvas.

        Raises:
            TeacherError: the canvas has another size.
        """


@dataclass(frozen=True, slots=True)
class ObjectTeacherInfo:
    """Identity and width of an object teacher.

    Attributes:
        id: model and weights; checkpoints are valid for one id.
        dim: width of the vector of an object.
        licence: as of `TeacherInfo`.
    """

    id: str
    dim: int
    licence: str = field(default="not recorded", compare=False)


class ObjectTeacher(Protocol):
    """Gives a vector of each labelled object of clean frames. It is frozen."""

    @property
    def info(self) -> ObjectTeacherInfo:
        """Identity and width."""

    def __call__(self, images: Tensor, frames: Tensor, boxes: Tensor) -> Tensor:
        """Compute vectors (n, dim) float32.

        Args:
            images: (N, 3, H, W) RGB in 0..255.
            frames: (n,) int64, the frame of each object.
            boxes: (n, 4) corners in pixels of the images.
        """


def check_canvas(images: Tensor) -> None:
    """Refuse frames of a size that the pyramids of detectors cannot have.

    Raises:
        TeacherError: height or width is no multiple of 32.
    """
    height, width = images.shape[2:]
    if height % STRIDES[-1] or width % STRIDES[-1]:
        raise TeacherError(
            f"a teacher was given a canvas of {height} x {width} pixels; height and width must be "
            f"multiples of {STRIDES[-1]}"
        )


def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """A map (N, C, h, w) at another height and width, bilinear; at half, means of four."""
    if tuple(x.shape[2:]) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
