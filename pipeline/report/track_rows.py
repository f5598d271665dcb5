"""What a page shows of each track, from the table `track_summary`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.report.frame_rows import Array, FrameRows, best_view

LOW_TRUST = 0.5
"""Tracks of less trust are marked: they are wrong more often than right."""


@dataclass(frozen=True, slots=True)
class TrackRows:
    """Tracks of a video, by the time at which they begin; arrays of (T,) if nothing else is said.

    Attributes:
        id: int64.
        first_s, last_s: times of the first and the last box.
        boxes: number of boxes.
        score, quality: means over the boxes.
        best: position of the frame that shows it best.
        best_box: (T, 4) x, y, w, h in pixels, there.
        trust: calibrated chance that it is one real person; NaN where it is not known.
    """

    id: Array
    first_s: Array
    last_s: Array
    boxes: Array
    score: Array
    quality: Array
    best: Array
    best_box: Array
    trust: Array

    @classmethod
    def of(cls, summary: pa.Table, frames: FrameRows) -> TrackRows:
        """Take the rows of one video."""
        table = summary.sort_by([("first_frame", "ascending"), ("track_id", "ascending")])
        return cls(
            id=table["track_id"].to_numpy(),
            first_s=table["first_s"].to_numpy(),
            last_s=table["last_s"].to_numpy(),
            boxes=table["boxes"].to_numpy(),
            score=table["score_mean"].to_numpy(),
            quality=table["quality_mean"].to_numpy(),
            best=np.searchsorted(frames.index, table["best_frame"].to_numpy()),
            best_box=np.stack([table[f"best_{side}"].to_numpy() for side in "xywh"], axis=1),
            trust=table["trust"].to_numpy().astype(np.float64),
        )

    @property
    def sure(self) -> Array:
        """Trust of each track, or its score where trust is not known."""
        return np.where(np.isfinite(self.trust), self.trust, self.score)

    def first_view(self, frames: FrameRows) -> int:
        """Position of the frame to open a page with.

        It shows most people. Of such frames it is the best view of the surest and longest track;
        if it is none of any track, the frame of best quality.

        Raises:
            ValueError: There is no frame.
        """
        view = best_view(frames)
        busiest = np.flatnonzero(frames.people[self.best] == frames.people[view])
        if not len(busiest):
            return view
        return int(self.best[busiest[np.argmax((self.sure * self.boxes)[busiest])]])

    @property
    def trust_known(self) -> bool:
        """Whether any track has a trust."""
        return bool(np.isfinite(self.trust).any())

    @property
    def low_trust(self) -> int:
        """Number of tracks of low trust."""
        return int((self.trust < LOW_TRUST).sum())
