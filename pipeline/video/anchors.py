"""Which key frame decoding is repeated from, to come to a place."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from pipeline.video.entry import KeyAt
from pipeline.video.place import Anchor, Progress
from pipeline.video.sampling import FilterState

# Frames from an anchor to a place. If they are the same as before, then so are the pictures that
# the next ones refer to. What libav makes up for damaged pictures depends on some dozen frames.
_PROOF = 64
_DELAYED = 256  # packets; decoders hold back some dozen frames


class Anchors:
    """Keeps the latest key frame that lies far enough back, and those after it."""

    def __init__(self) -> None:
        """Start before the first packet."""
        self._read: dict[int, _Packet] = {}  # key frames not yet decoded, by timestamp
        self._shown: deque[tuple[int, Anchor]] = deque()  # with the frames shown before
        self._count = 0

    @property
    def best(self) -> Anchor | None:
        """The anchor for a place after the last frame; None is the start of the file."""
        return self._shown[0][1] if self._shown else None

    def read(
        self, here: KeyAt, dts: int | None, packets: int | None, state: FilterState | None
    ) -> None:
        """Note the packet of a key frame, before it is decoded; arguments as of `Anchor`."""
        self._read[here.pts] = _Packet(dts, here.position, packets, state)
        if len(self._read) > _DELAYED:
            del self._read[next(iter(self._read))]

    def show(self, pts: int | None, progress: Callable[[], Progress]) -> None:
        """Note the next decoded frame.

        Args:
            pts: its timestamp.
            progress: gives the state before the frame; called for key frames.
        """
        packet = self._read.pop(pts, None) if pts is not None else None
        if pts is not None and packet is not None:
            self._shown.append((self._count, Anchor(pts, *packet, progress())))
        self._count += 1
        while len(self._shown) > 1 and self._shown[1][0] <= self._count - _PROOF:
            self._shown.popleft()


class _Packet(NamedTuple):
    """What an anchor tells of a packet."""

    dts: int | None
    position: int | None
    packets: int | None
    filter: FilterState | None
