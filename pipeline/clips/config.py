"""How training clips are drawn."""

from dataclasses import dataclass
from typing import Annotated, Literal

from model.settings import NotEmpty, Range, Share, check
from pipeline.degrade.kinds import PORTABLE_KINDS, Kind

_STRIDE = 32
_Canvas = Annotated[int, Range(_STRIDE, multiple_of=_STRIDE)]


@dataclass(frozen=True, slots=True)
class ClipConfig:
    """How clips are drawn. Shares lie in [0, 1].

    Attributes:
        height, width: canvas in pixels, multiples of 32.
        heights: least and greatest height of canvases, multiples of 32: every batch has one
            between them, with the proportions of height and width. null: all are alike.
        length: frames a clip; 1 for single frames.
        stills: share of clips made from stills.
        longest_gap: greatest time in seconds between two frames of a clip.
        small: share of views and tiles scaled so that people are 24 to 96 pixels high.
        mosaic: share of single frames that are mosaics of four pictures.
        paste: share of single frames into which people of other pictures are pasted.
        degraded: share of clips that are degraded.
        several: share of the degraded that get several kinds at once, which swing over time.
        degrade_at: `canvas` degrades views at the size of the canvas, fast, and says of none how
            poor it is; `camera` at the size the camera had, and says so. Single frames are then
            plain views, neither mosaics nor pasted into, and kinds come one at a time.
        kinds: kinds of degradation drawn from; `codec` needs PyAV and degrade_at `camera`. At the
            canvas JPEG is drawn beside them.
        objects: objects a frame at most; the rest is ignored.
        memory_gb: decoded pictures kept in memory at most, in 10^9 bytes.
    """

    height: _Canvas = 256
    width: _Canvas = 416
    heights: tuple[_Canvas, _Canvas] | None = None
    length: Annotated[int, Range(1)] = 3
    stills: Share = 0.6
    longest_gap: Annotated[float, Range(0)] = 0.3
    small: Share = 0.3
    mosaic: Share = 0.5
    paste: Share = 0.2
    degraded: Share = 0.5
    several: Share = 0.4
    degrade_at: Literal["canvas", "camera"] = "canvas"
    kinds: Annotated[tuple[Kind, ...], NotEmpty()] = PORTABLE_KINDS
    objects: Annotated[int, Range(1)] = 100
    memory_gb: Annotated[float, Range(0)] = 8.0

    def __post_init__(self) -> None:
        check(self)
        if self.heights is not None and self.heights[0] > self.heights[1]:
            raise ValueError(
                f"clips.heights: {list(self.heights)} was given, [LEAST, GREATEST] is allowed"
            )
        if self.degrade_at == "canvas" and "codec" in self.kinds:
            raise ValueError(
                "clips.kinds: codec takes too long for degrade_at=canvas; leave it out, or take "
                "degrade_at=camera"
            )

    def canvases(self) -> list[tuple[int, int]]:
        """All sizes (height, width) that batches may have."""
        if self.heights is None:
            return [(self.height, self.width)]
        ratio = self.width / self.height
        return [
            (height, max(_STRIDE, round(height * ratio / _STRIDE) * _STRIDE))
            for height in range(self.heights[0], self.heights[1] + 1, _STRIDE)
        ]
