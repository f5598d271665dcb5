"""What a student is made of: one dataclass, three sizes."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any, Literal

from model.net.letterbox import Letterbox
from model.settings import NotEmpty, Range, Share, check

STRIDES = (8, 16, 32)
"""Strides in pixels of the feature maps the decoder looks at."""
Size = Literal["nano", "small", "base"]
LEAST_SIDE = 64
"""Least height and width in pixels of a canvas."""
CanvasSide = Annotated[int, Range(LEAST_SIDE, multiple_of=STRIDES[-1])]
"""Height or width in pixels of a canvas."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything that decides the student's shapes and its behaviour at inference.

    Attributes:
        size: name of the size this config started from.
        backbone: a timm model that can give features at strides 4, 8, 16 and 32.
        input_height, input_width: canvas in pixels, multiples of 32.
        classes: names of the classes, by label index.
        dim: width of every map and query.
        heads, points: attention heads; sampling points a head and level.
        encoder_layers, decoder_layers, track_layers: transformer layers on the coarsest map; on
            detection queries; on track queries.
        feedforward: hidden width of the transformer layers.
        semantic_dim: width of the semantic map and the global semantic vector.
        detection_queries: proposals a frame, the dense head's best.
        slots: tracks a stream can hold at once.
        birth_threshold: score from which a detection query starts a track.
        keep_threshold: score from which a track counts as seen in a frame.
        duplicate_iou: of two that overlap more than this, the worse is neither born nor seen.
        miss_tolerance: frames a track survives unseen.
        memory_rate: share of a clean frame that goes into a track's long memory.
        velocity_rate: share of the newest step in a track's velocity.
        quality_smoothing: share of the past in the quality that queries are gated by.
    """

    size: str = "nano"
    backbone: str = "tf_efficientnet_lite0"
    input_height: CanvasSide = 384
    input_width: CanvasSide = 640
    classes: Annotated[tuple[str, ...], NotEmpty()] = ("person",)
    dim: int = 128
    heads: int = 8
    points: int = 4
    encoder_layers: int = 1
    decoder_layers: int = 2
    track_layers: int = 1
    feedforward: int = 256
    semantic_dim: int = 128
    detection_queries: int = 100
    slots: int = 100
    birth_threshold: Share = 0.6
    keep_threshold: Share = 0.5
    duplicate_iou: Share = 0.7
    miss_tolerance: int = 20
    memory_rate: float = 0.1
    velocity_rate: Share = 0.2
    quality_smoothing: Share = 0.8

    def __post_init__(self) -> None:
        check(self)
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} must be a multiple of heads {self.heads}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """Build from `to_dict`'s values; an unknown name is a ValueError."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown model settings {unknown}; known are {sorted(known)}")
        return cls(**{**values, "classes": tuple(values.get("classes", cls().classes))})

    def canvas_for(self, height: int, width: int) -> tuple[int, int]:
        """Return the canvas of a video, (height, width): the config's without idle padding.

        Args:
            height, width: the displayed picture, in pixels.
        """
        box = Letterbox(height, width, self.input_height, self.input_width)
        return box.least_canvas(LEAST_SIDE, STRIDES[-1])

    def padded_canvas(self, height: int, width: int) -> tuple[int, int]:
        """Return the canvas that maps of another canvas have at inference, (height, width)."""
        return max(height, self.input_height), max(width, self.input_width)

    def with_input(self, height: int, width: int) -> "ModelConfig":
        """Return the same model for another canvas, in pixels."""
        return replace(self, input_height=height, input_width=width)


SIZES: dict[Size, ModelConfig] = {
    "nano": ModelConfig(),
    "small": ModelConfig(
        size="small",
        backbone="tf_efficientnet_lite2",
        dim=192,
        feedforward=512,
        decoder_layers=4,
        track_layers=2,
    ),
    "base": ModelConfig(
        size="base",
        backbone="resnet50",
        input_height=640,
        input_width=1088,
        dim=256,
        feedforward=1024,
        decoder_layers=6,
        track_layers=3,
        semantic_dim=256,
        detection_queries=200,
        slots=200,
    ),
}
"""The named sizes; every one is the same code."""
