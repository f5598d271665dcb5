"""Some frames a second of a video: which are taken, and which need no decoding."""

from __future__ import annotations

import heapq
import math
from fractions import Fraction
from typing import NamedTuple

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipeline.video.clock import JUMP_BACK_S

_FLOAT_S = 5e-10  # seconds; more than the rounding of a time of a week, less than any tick
_ROUNDED = 0.25  # of an interval; a longer tick is no rounding, but the clock of the frames
_KEPT_CELLS = 256  # packets come at most some dozen frames out of order

# Decoders that leave out a picture that no other picture refers to, if they are told. HEVC is not
# among them: what it marks so may be referred to from a higher temporal layer.
_DROPS_UNREFERENCED = frozenset({"h264", "mpeg1video", "mpeg2video", "mpeg4"})


class TimeGrid:
    """Takes the first frame in each interval of 1/fps seconds, counted from the start.

    An interval without a frame gives none, so a video of a lower rate keeps all its frames. It can
    lose one where its rounded timestamps come closer than an interval.
    """

    def __init__(self, fps: float, tick_s: float) -> None:
        """Take the rate, and the tick of the timestamps, which are rounded to it."""
        self._fps = fps
        # Rounded timestamps of a video of just this rate may lie a tick before their interval.
        # A little more, because a time of just a tick too little is not exact as a float.
        self._slack_s = min(tick_s + _FLOAT_S, _ROUNDED / fps)
        self.last = -1  # interval of the last frame; all that decides which are taken next

    def cell(self, time_s: float) -> int:
        """Number of the interval that a time lies in."""
        return math.floor((time_s + self._slack_s) * self._fps)

    def takes(self, time_s: float) -> bool:
        """Whether the next frame, at this time, is taken; times must not decrease."""
        cell = self.cell(time_s)
        taken, self.last = cell > self.last, cell
        return taken


class FilterState(NamedTuple):
    """All that decides which packets a `PacketFilter` leaves out from a key frame on.

    Attributes:
        works, shown, newest, last_shown: as in the filter.
        first: pairs of an interval, not before that of the key frame, and its least timestamp.
    """

    works: bool
    shown: bool
    newest: int | None
    last_shown: int | None
    first: tuple[tuple[int, int], ...]


class PacketFilter:
    """Finds packets that need no decoding, because the grid cannot take their frames.

    A frame cannot be taken if a packet with an earlier time in the same interval was given to the
    decoder. Packets come in the order of decoding, so this is no necessary condition. Frames that
    others refer to are decoded in any case. What the grid takes is therefore the same with and
    without the filter, unless the file is damaged: the taken frame of an interval may be the
    damaged one.

    The filter works on progressive video with timestamps, of codecs where each packet is known to
    be one frame. It ends for good where the clock of the file restarts.
    """

    def __init__(self, grid: TimeGrid, stream: VideoStream) -> None:
        """Watch a stream that was just opened."""
        self._grid, self._context = grid, stream.codec_context
        self._tick = stream.time_base or Fraction(0)
        self._intra = self._context.codec.intra_only
        known = self._intra or self._context.name in _DROPS_UNREFERENCED
        self._works = known and self._tick > 0 and stream.start_time is not None
        self._origin = stream.start_time or 0
        self._shown = False  # frames tell only when decoded whether they are interlaced
        self._first: dict[int, int] = {}  # least timestamp by interval
        self._newest: int | None = None
        self._last_shown: int | None = None
        self._skipped: list[int] = []  # timestamps, a heap

    def state(self, pts: int) -> FilterState:
        """State before the packet of a key frame with this timestamp."""
        least = self._cell(pts)
        first = tuple((cell, least_pts) for cell, least_pts in self._first.items() if cell >= least)
        return FilterState(self._works, self._shown, self._newest, self._last_shown, first)

    def restore(self, state: FilterState) -> None:
        """Go on from a state; the next packet must be that of its key frame."""
        self._works, self._shown, self._newest, self._last_shown, first = state
        self._first = dict(first)
        self._skipped = []

    def skips(self, packet: av.Packet) -> bool:
        """Note a packet; whether it need not be given to the decoder at all.

        If only the decoder can tell whether others refer to the frame, the decoder is told to
        leave it out if none does.
        """
        unneeded = self._works and self._is_unneeded(packet)
        if self._intra:
            return unneeded
        self._context.skip_frame = "NONREF" if unneeded else "DEFAULT"
        return False

    def skipped_before(self, frame: VideoFrame | None) -> list[int]:
        """Timestamps of the frames that were left out before the next decoded frame, in order.

        Args:
            frame: the decoded frame; None at the end of the video.
        """
        pts = None
        if frame is not None:
            self._shown = True
            self._works = self._works and not frame.interlaced_frame
            pts = frame.pts
            if pts is None:
                return []
            if self._behind(pts, self._last_shown):
                pts = None  # all that was left out came before the restart of the clock
            self._last_shown = frame.pts
        before = []
        while self._skipped and (pts is None or self._skipped[0] <= pts):
            timestamp = heapq.heappop(self._skipped)
            # The decoder gave it all the same, because others refer to it.
            if timestamp != pts:
                before.append(timestamp)
        return before

    def _is_unneeded(self, packet: av.Packet) -> bool:
        pts = packet.pts
        if packet.size == 0:  # the end of the stream
            return False
        if pts is None or self._behind(pts, self._newest):
            self._works = False
            return False
        self._newest = pts if self._newest is None else max(pts, self._newest)
        cell = self._cell(pts)
        earliest = self._first.get(cell)
        if earliest is None or pts < earliest:
            self._first[cell] = pts
            if len(self._first) > _KEPT_CELLS:
                del self._first[min(self._first)]
            return False
        if not self._shown or pts == earliest:
            return False
        heapq.heappush(self._skipped, pts)
        return True

    def _cell(self, pts: int) -> int:
        return self._grid.cell(float((pts - self._origin) * self._tick))

    def _behind(self, pts: int, last: int | None) -> bool:
        """Whether the clock of the file has restarted, as `Clock` sees it."""
        return last is not None and (last - pts) * self._tick > JUMP_BACK_S
