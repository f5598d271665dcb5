"""When the tracks of a video were seen, collected while its rows pass."""

from __future__ import annotations

import numpy as np

from pipeline.report.frame_rows import Array, FrameRows

_GAP_S = 0.5  # a track that is unseen for longer is drawn as two bars
_ARRIVAL_STEPS_S = 3600.0, 600.0, 60.0


class TrackBars:
    """First and last frame of each track, and the stretches between long gaps.

    Attributes:
        first, last: positions of the first and the last frame, with a place for each track id.
    """

    def __init__(self, frames: FrameRows) -> None:
        self._frames = frames
        self._limit_s = max(_GAP_S, 3 * frames.interval_s)
        self.first = np.zeros(0, np.int64)
        self.last = np.zeros(0, np.int64)
        self._seen = np.zeros(0, bool)
        self._bar_start = np.zeros(0, np.int64)
        # Id, first and last position of bars that are complete.
        self._bars: list[tuple[Array, Array, Array]] = []

    @property
    def ids(self) -> Array:
        """Ids that occur, in order of their first frame."""
        found = np.flatnonzero(self._seen)
        return found[np.lexsort((found, self.first[found]))]

    def bars(self) -> tuple[Array, Array, Array]:
        """Id, first and last position of each stretch without a long gap."""
        found = self.ids
        parts = [*self._bars, (found, self._bar_start[found], self.last[found])]
        ids, start, end = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return ids, start, end

    def arrivals(self) -> tuple[float, list[int]]:
        """Tracks by the time at which they begin: seconds of a bin, and the number in each bin.

        Bins are of an hour, or of ten minutes or one where the video is shorter than two hours.
        """
        end = self._frames.end_s
        step = next((step for step in _ARRIVAL_STEPS_S if end > 2 * step), _ARRIVAL_STEPS_S[-1])
        begin = self._frames.time_s[self.first[self.ids]]
        count = max(1, int(np.ceil(end / step)))
        return step, np.bincount((begin / step).astype(int), minlength=count).tolist()

    def add(self, track_id: Array, frame: Array) -> None:
        """Add rows, whose frames follow those that were added before.

        Args:
            track_id, frame: (R,), `frame` the position among the frames of the video.
        """
        if not len(track_id):
            return
        order = np.lexsort((frame, track_id))
        ids, frame = track_id[order], frame[order]
        self._room_for(int(ids[-1]))
        starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
        ends = np.r_[starts[1:], len(ids)] - 1
        own = ids[starts]
        new = ~self._seen[own]

        before = np.r_[0, frame[:-1]]
        before[starts] = self.last[own]
        apart = self._frames.time_s[frame] - self._frames.time_s[before] > self._limit_s
        apart[starts[new]] = False
        self._bar_start[own[new]] = frame[starts[new]]
        self._close_bars(ids, frame, before, np.flatnonzero(apart))

        self.first[own[new]] = frame[starts[new]]
        self.last[own] = frame[ends]
        self._seen[own] = True

    def _close_bars(self, ids: Array, frame: Array, before: Array, apart: Array) -> None:
        """End a bar before each row of `apart`, rows in order of id and frame, and begin one."""
        if not len(apart):
            return
        track = ids[apart]
        start = np.r_[0, frame[apart][:-1]]
        first = np.r_[True, track[1:] != track[:-1]]
        start[first] = self._bar_start[track[first]]
        self._bars.append((track, start, before[apart]))
        last = np.r_[track[1:] != track[:-1], True]
        self._bar_start[track[last]] = frame[apart][last]

    def _room_for(self, greatest: int) -> None:
        """Make room for ids up to this one."""
        if greatest < len(self._seen):
            return
        length = greatest * 5 // 4 + 1
        for name in ("first", "last", "_seen", "_bar_start"):
            getattr(self, name).resize(length, refcheck=False)
