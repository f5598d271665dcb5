"""Times of frames, from the timestamps of a file."""

from fractions import Fraction
from typing import NamedTuple

JUMP_BACK_S = 1.0  # a timestamp this far behind the last one starts a new clock


class ClockState(NamedTuple):
    """All that decides the next times of a `Clock`.

    Attributes:
        origin: the stream's first timestamp in ticks; None before it is known.
        offset: seconds added to timestamps; not 0 once the clock of the file has restarted.
        last: time of the last frame in seconds; None before the first.
    """

    origin: int | None
    offset: float
    last: float | None


class Clock:
    """Presentation times in seconds from the start of the stream, never running backwards."""

    def __init__(self, fps: float | None) -> None:
        """Take the rate of the header, for frames that have no timestamp."""
        self._step = 1 / fps if fps else 0.0
        self._origin: int | None = None
        self._offset = 0.0
        self._last: float | None = None

    def start(self, origin: int | None) -> None:
        """Set the stream's first timestamp, in its ticks, if the header knows it."""
        self._origin = origin

    @property
    def end(self) -> float:
        """Time at which the last frame ends."""
        return 0.0 if self._last is None else self._last + self._step

    @property
    def restarted(self) -> bool:
        """Whether the clock of the file has restarted in mid-file."""
        return self._offset != 0.0

    @property
    def state(self) -> ClockState:
        """All that decides the next times."""
        return ClockState(self._origin, self._offset, self._last)

    @state.setter
    def state(self, state: ClockState) -> None:
        self._origin, self._offset, self._last = state

    def time(self, pts: int | None, time_base: Fraction | None) -> float:
        """Return the time of the next frame; without a timestamp, one frame after the last.

        Args:
            pts: its timestamp in ticks.
            time_base: seconds of a tick.
        """
        if pts is None or time_base is None:
            self._last = self.end
            return self._last
        if self._origin is None:
            self._origin = pts
        now = float((pts - self._origin) * time_base) + self._offset
        if self._last is not None and now < self._last - JUMP_BACK_S:
            # Some recorders restart their clock in mid-file: continue from the last frame.
            self._offset += self.end - now
            now = self.end
        self._last = max(now, self._last or 0.0)
        return self._last
