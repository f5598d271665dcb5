"""What stitching needs of a window of a video that was tracked apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa

from pipeline.stitching.looks import Array, Looks


@dataclass(frozen=True, slots=True)
class Sights:
    """Boxes in some successive frames of a window.

    Attributes:
        frame_index, time_s: (F,) of the frames, ascending.
        frame: (N,) place in these, for each box.
        track_id: (N,).
        boxes: (N, 4) x, y, w, h in pixels.
    """

    frame_index: Array
    time_s: Array
    frame: Array
    track_id: Array
    boxes: Array

    @classmethod
    def between(cls, tracks: pa.Table, frames: pa.Table, start_s: float, end_s: float) -> Self:
        """Those with start_s <= time_s < end_s, of rows in the order of the frames."""
        time_s = frames["time_s"].to_numpy()
        first, last = np.searchsorted(time_s, (start_s, end_s))
        # Copies, because a view would keep the columns of the whole window in memory.
        index = frames["frame_index"].to_numpy()[first:last].copy()
        low, high = np.searchsorted(tracks["time_s"].to_numpy(), (start_s, end_s))
        rows = tracks.slice(low, high - low)
        return cls(
            index,
            time_s[first:last].copy(),
            np.searchsorted(index, rows["frame_index"].to_numpy()),
            rows["track_id"].to_numpy().copy(),
            np.stack([rows[side].to_numpy() for side in "xywh"], axis=1),
        )


@dataclass(frozen=True, slots=True)
class Window:
    """What stitching needs of a window of a video that was tracked apart.

    Its finished rows are those from `start_s` to before `end_s`. Rows before are the warm-up of its
    tracks, in frames that the window before it has too.

    Attributes:
        start_s, end_s: Seconds of video; the first window starts at -inf, the last ends at inf.
        head: Boxes before `start_s`.
        tail: Boxes in the last `overlap_s` before `end_s`.
        finished: Time of the first finished row of each track that has one, by id.
        looks: Of its tracks.
    """

    start_s: float
    end_s: float
    head: Sights
    tail: Sights
    finished: Mapping[int, float]
    looks: Looks

    @classmethod
    def of(
        cls,
        tracks: pa.Table,
        frames: pa.Table,
        looks: Looks,
        start_s: float,
        end_s: float,
        overlap_s: float,
    ) -> Self:
        """Take what stitching needs of the tables of a window.

        Args:
            tracks, frames: Its rows, in the order of the frames, with ids and indices of its own.
            looks: Of its tracks.
            start_s, end_s: See `Window`.
            overlap_s: Seconds of video that two windows share.
        """
        time_s = tracks["time_s"].to_numpy()
        low, high = np.searchsorted(time_s, (start_s, end_s))
        ids, first = np.unique(tracks["track_id"].to_numpy()[low:high], return_index=True)
        return cls(
            start_s=start_s,
            end_s=end_s,
            head=Sights.between(tracks, frames, -math.inf, start_s),
            tail=Sights.between(tracks, frames, end_s - overlap_s, end_s),
            finished=dict(zip(ids.tolist(), time_s[low:high][first].tolist(), strict=True)),
            looks=looks,
        )
