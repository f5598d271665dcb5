"""Ways into a video other than its start: a certain key frame, or one before a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from pipeline.video.place import Anchor

# In these, reading can begin at any byte; that finds a packet also where timestamps come twice.
_BY_POSITION = frozenset({"mpegts", "mpeg"})
_STEPS_BACK_S = 0.0, 4.0, 16.0, 64.0  # where there is no key frame, it is looked for earlier


class NoEntry(Exception):
    """The key frame cannot be reached by seeking."""


class KeyAt(NamedTuple):
    """Where a key frame is in a file.

    Attributes:
        pts: timestamp of its packet in ticks.
        position: byte at which its packet begins; None if the container does not tell.
    """

    pts: int
    position: int | None


class Entry(NamedTuple):
    """A key frame that was found.

    Attributes:
        key: where it is.
        packets: the stream's packets from it on.
        before: packets of the stream before it; None if the container has no index.
    """

    key: KeyAt
    packets: Iterator[av.Packet]
    before: int | None


def key_at(packet: av.Packet) -> KeyAt | None:
    """Where a packet is if it is a key frame with a timestamp, else None."""
    if not packet.is_keyframe or packet.pts is None:
        return None
    known = packet.pos is not None and packet.pos >= 0
    return KeyAt(packet.pts, packet.pos if known else None)


def enter_at(container: InputContainer, stream: VideoStream, anchor: Anchor) -> Entry:
    """Seek to the packet of an anchor.

    Raises:
        NoEntry: it is not found.
    """
    # Some containers seek by the time at which frames are shown, others by that of decoding.
    targets = [(anchor.pts, False), (anchor.dts, False)]
    if container.format.name in _BY_POSITION:
        targets.append((anchor.position, True))
    for target, by_position in targets:
        if target is None:
            continue
        packets = _seek(container, stream, target, by_position)
        for packet in packets:
            here = key_at(packet)
            if here is None:
                continue
            if here == (anchor.pts, anchor.position):
                return Entry(here, chain([packet], packets), anchor.packets)
            if _is_beyond(here, anchor):
                break
    raise NoEntry


def enter_before(container: InputContainer, stream: VideoStream, time_s: float) -> Entry:
    """Seek to a key frame at a time, in seconds from the start of the stream, or before it.

    Raises:
        NoEntry: there is none but at the start of the file, or the stream has no clock.
    """
    origin, tick = stream.start_time, stream.time_base
    if origin is None or not tick:
        raise NoEntry
    latest = origin + math.floor(time_s / tick)
    for back_s in _STEPS_BACK_S:
        target = latest - math.ceil(back_s / tick)
        if target <= origin:
            break
        packets = _seek(container, stream, target, by_position=False)
        for packet in packets:
            if packet.pts is None or packet.pts > latest:
                break
            here = key_at(packet)
            # A packet without position has no timestamp of its own: libav continues the last one,
            # which it does otherwise after a seek.
            if here is not None and here.position is not None:
                return Entry(here, chain([packet], packets), _packets_before(stream, packet))
    raise NoEntry


def _seek(
    container: InputContainer, stream: VideoStream, target: int, by_position: bool
) -> Iterator[av.Packet]:
    try:
        container.seek(target, stream=stream, unsupported_byte_offset=by_position)
    except av.FFmpegError as error:
        raise NoEntry from error
    return container.demux(stream)


def _is_beyond(here: KeyAt, anchor: Anchor) -> bool:
    if here.position is not None and anchor.position is not None:
        return here.position > anchor.position
    return here.pts > anchor.pts


def _packets_before(stream: VideoStream, packet: av.Packet) -> int | None:
    """Number of the stream's packets before this one, by the index of the container."""
    if packet.dts is None:
        return None
    entries = stream.index_entries
    number = entries.search_timestamp(packet.dts, backward=True, any_frame=True)
    return number if number >= 0 and entries[number].pos == packet.pos else None
