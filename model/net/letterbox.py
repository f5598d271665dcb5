"""Fit a picture of any size on the model's canvas without distortion, and map boxes back."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Geometry of one picture on one canvas.

    The picture is scaled to fit, placed at the top left and padded on the right and below. So
    the mapping of boxes is a scaling without an offset.

    Attributes:
        source_height, source_width: displayed frame in pixels (rotation applied).
        input_height, input_width: the model's canvas in pixels.
    """

    source_height: int
    source_width: int
    input_height: int
    input_width: int

    def __post_init__(self) -> None:
        sizes = (self.source_height, self.source_width, self.input_height, self.input_width)
        if min(sizes) < 1:
            raise ValueError(f"letterbox sizes must be at least 1 pixel, got {sizes}")

    @property
    def _factor(self) -> float:
        return min(self.input_height / self.source_height, self.input_width / self.source_width)

    @property
    def scaled_height(self) -> int:
        """Height in pixels of the picture on the canvas."""
        return min(self.input_height, max(1, round(self.source_height * self._factor)))

    @property
    def scaled_width(self) -> int:
        """Width in pixels of the picture on the canvas."""
        return min(self.input_width, max(1, round(self.source_width * self._factor)))

    @property
    def scale(self) -> tuple[float, float]:
        """Canvas pixels per source pixel, (vertical, horizontal); rounding makes them differ."""
        return self.scaled_height / self.source_height, self.scaled_width / self.source_width

    def least_canvas(self, least: int, multiple: int) -> tuple[int, int]:
        """Return height and width of a smaller canvas on which the picture has the same scale.

        Args:
            least: least height and width.
            multiple: height and width are multiples of it, as are those of this canvas.
        """
        height, width = self.source_height, self.source_width
        # Exact sizes are height * a / b and width * a / b. Rounded ones could be smaller than
        # these, and on a canvas cropped to them the scale would be another.
        a, b = min(
            (self.input_height, height),
            (self.input_width, width),
            key=lambda side: side[0] / side[1],
        )
        height, width = (-(-side * a // (b * multiple)) * multiple for side in (height, width))
        return max(least, height), max(least, width)

    def to_source(self, boxes: np.ndarray) -> np.ndarray:
        """Map boxes (N, 4) xyxy from canvas pixels to source pixels, clipped to the frame."""
        vertical, horizontal = self.scale
        mapped = boxes / np.array([horizontal, vertical, horizontal, vertical])
        limit = np.array(
            [self.source_width, self.source_height, self.source_width, self.source_height]
        )
        return np.clip(mapped, 0, limit)

    def to_canvas(self, boxes: np.ndarray) -> np.ndarray:
        """Map boxes (N, 4) xyxy from source pixels to canvas pixels."""
        vertical, horizontal = self.scale
        return boxes * np.array([horizontal, vertical, horizontal, vertical])
