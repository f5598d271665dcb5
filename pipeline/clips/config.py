"""Settings of training clips, and of single frames between them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from model.settings import NotEmpty, Range, Share, check
from pipeline.degrade.kinds import PORTABLE_KINDS, Kind

_STRIDE = 32
_Canvas = Annotated[int, Range(_STRIDE, multiple_of=_STRIDE)]


@dataclass(frozen=True, slots=True)
class ClipConfig:
    """Contents of the training clips.

    Attributes:
        height: height of the canvas in pixels, a multiple of 32.
        width: width of the canvas in pixels, a multiple of 32.
        heights: least and greatest height of a canvas, multiples of 32. Each batch gets a random
            height between them, with the proportions of height and width. null: all canvases have
            the same size.
        length: frames in a clip; 1 for single frames.
        stills: share of clips made from stills.
        favoured: glob patterns of sources that are drawn three times as often as their size alone
            would have it, for those with the most to learn from: photographs of many places, not
            one camera.
        longest_gap: greatest time between two neighbouring frames of a clip, in seconds.
        small: share of crops that are scaled so that people are 24 to 96 pixels high; single
            frames only.
        large: share of crops that are scaled so that the tallest person is 160 pixels high or more;
            single frames only.
        mosaic: share of single frames that are mosaics of four pictures.
        paste: share of single frames into which people from other pictures are pasted.
        degraded: share of clips that are degraded.
        several: share of the degraded clips that get several kinds of degradation at once, with
            levels that vary over time; with degrade_at=canvas only.
        degrade_at: size of the picture when it is degraded. `canvas`: that of the canvas, which is
            fast, but leaves the severity unknown. `camera`: that of the camera's picture, with a
            known severity; then there are no mosaics and no pasted people, and a clip has one kind
            of degradation.
        kinds: kinds of degradation to draw from. `codec` needs PyAV and degrade_at=camera. With
            degrade_at=canvas, JPEG compression is added to the kinds.
        objects: greatest number of labelled objects in a frame; more are dropped.
        memory_gb: greatest memory for decoded pictures, in 10^9 bytes.
    """

    height: _Canvas = 256
    width: _Canvas = 416
    heights: tuple[_Canvas, _Canvas] | None = None
    length: Annotated[int, Range(1)] = 3
    stills: Share = 0.6
    favoured: tuple[str, ...] = ()
    longest_gap: Annotated[float, Range(0)] = 0.3
    small: Share = 0.3
    large: Share = 0.3
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
        if self.small + self.large > 1:
            raise ValueError(
                f"clips.small={self.small:g} and clips.large={self.large:g} are shares of the same "
                "crops; their sum may be at most 1"
            )
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
        """All canvas sizes (height, width) in pixels that a batch may have."""
        if self.heights is None:
            return [(self.height, self.width)]
        ratio = self.width / self.height
        return [
            (height, max(_STRIDE, round(height * ratio / _STRIDE) * _STRIDE))
            for height in range(self.heights[0], self.heights[1] + 1, _STRIDE)
        ]


@dataclass(frozen=True, slots=True)
class SinglesConfig:
    """Steps on single frames between the steps on clips.

    Detection learns most from large batches of single frames of many scenes, tracks learn from
    clips alone. In turn they train together, so tracks follow what detection becomes.

    Attributes:
        steps: steps on single frames before each step on clips; 0: all steps are on clips.
        batch: frames in a step on single frames, over all workers.
        clips: contents of the single frames. Their pictures are kept in the memory of the job's
            clips.memory_gb.
    """

    steps: Annotated[int, Range(0)] = 0
    batch: Annotated[int, Range(1)] = 16
    clips: ClipConfig = ClipConfig(length=1)

    def __post_init__(self) -> None:
        check(self)
        if self.clips.length != 1:
            raise ValueError(
                f"singles.clips.length: {self.clips.length} was given, 1 is allowed; clips.length "
                "is that of clips"
            )
