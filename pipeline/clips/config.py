"""How training clips are drawn."""

from dataclasses import dataclass

from pipeline.degrade.kinds import KINDS, PORTABLE_KINDS

_STRIDE = 32


@dataclass(frozen=True, slots=True)
class ClipConfig:
    """How clips are drawn. Shares lie in [0, 1].

    Attributes:
        height, width: canvas in pixels, multiples of 32.
        heights: least and greatest height of canvases, multiples of 32: every batch has one
            between them, with the proportions of height and width. None: all are alike.
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

    height: int = 256
    width: int = 416
    heights: tuple[int, int] | None = None
    length: int = 3
    stills: float = 0.6
    longest_gap: float = 0.3
    small: float = 0.3
    mosaic: float = 0.5
    paste: float = 0.2
    degraded: float = 0.5
    several: float = 0.4
    degrade_at: str = "canvas"
    kinds: tuple[str, ...] = PORTABLE_KINDS
    objects: int = 100
    memory_gb: float = 8.0

    def __post_init__(self) -> None:
        # JSON has lists.
        object.__setattr__(self, "kinds", tuple(self.kinds))
        if self.heights is not None:
            object.__setattr__(self, "heights", tuple(self.heights))
        self._check_canvas()
        for name in ("stills", "small", "mosaic", "paste", "degraded", "several"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"clips.{name} is a share in [0, 1], got {getattr(self, name)}")
        for name in ("length", "objects"):
            if getattr(self, name) < 1:
                raise ValueError(f"clips.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("longest_gap", "memory_gb"):
            if getattr(self, name) < 0:
                raise ValueError(f"clips.{name} may not be negative, got {getattr(self, name)}")
        if self.degrade_at not in ("canvas", "camera"):
            raise ValueError(f"clips.degrade_at must be canvas or camera, got {self.degrade_at!r}")
        if not self.kinds or (unknown := set(self.kinds) - set(KINDS)):
            given = sorted(unknown) if self.kinds else "none"
            raise ValueError(f"clips.kinds: {given} given; known are {', '.join(KINDS)}")
        if self.degrade_at == "canvas" and "codec" in self.kinds:
            raise ValueError(
                "clips.kinds: codec takes too long for degrade_at=canvas; leave it out, or take "
                "degrade_at=camera"
            )

    def _check_canvas(self) -> None:
        for name in ("height", "width"):
            if getattr(self, name) < _STRIDE or getattr(self, name) % _STRIDE:
                raise ValueError(
                    f"clips.{name} must be a multiple of {_STRIDE}, got {getattr(self, name)}"
                )
        if self.heights is not None and (
            len(self.heights) != 2
            or not _STRIDE <= self.heights[0] <= self.heights[1]
            or any(height % _STRIDE for height in self.heights)
        ):
            raise ValueError(
                f"clips.heights must be [LEAST, GREATEST], multiples of {_STRIDE}, or null, "
                f"got {list(self.heights)}"
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
