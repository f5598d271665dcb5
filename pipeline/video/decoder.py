"""Decodes the frames of a video, with their times, from its start or from anywhere in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import suppress

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipeline.video.anchors import Anchors
from pipeline.video.clock import JUMP_BACK_S, Clock
from pipeline.video.entry import Entry, KeyAt, NoEntry, enter_at, enter_before, key_at
from pipeline.video.errors import DecodeError, NothingThere, PlaceLost
from pipeline.video.fingerprint import fingerprint
from pipeline.video.info import VideoInfo
from pipeline.video.limits import Limits
from pipeline.video.place import Anchor, Place, Progress
from pipeline.video.probe import ProbeError, indexed_frames, open_video
from pipeline.video.sampling import PacketFilter, TimeGrid

_EARLY_END_S = 1.0  # a video may end this much before its header's duration: audio may be longer
_HEADER_DURATION = frozenset({"mp4", "matroska", "asf", "flv"})  # elsewhere libav estimates it
_KEYS = 10_000  # key frames whose positions are known; where all frames are such, some minutes


class Decoder:
    """Decode a video's frames one after another in the calling thread.

    A damaged packet is skipped and counted in `damaged`. `decoded` counts the frames read so far;
    those that `fps` leaves out count, though some of them need no decoding. After the last frame
    `error` says why decoding stopped before the end of the video; it is None if it reached the end,
    or `end_s`.

    After a place, all of this is as if the decoder had come there without a break. After a time,
    frames and damaged packets count from the first frame that is not before it.

    Attributes:
        entered: the key frame where decoding began; None at the start of the file.
        keys: the last key frames that were read, also those before `start`. Where the clock of a
            file restarts, the same time comes twice, and only this tells whether two decoders that
            met at a time have read the same part of the file.
    """

    def __init__(
        self,
        info: VideoInfo,
        limits: Limits | None = None,
        threads: int = 0,
        fps: float | None = None,
        start: Place | float | None = None,
        end_s: float | None = None,
        keep_places: bool = False,
    ) -> None:
        """Take a video.

        Args:
            info: the video.
            limits: bounds on pictures and their number.
            threads: threads of libav; 0 is one for each core.
            fps: frames to give a second, see `TimeGrid`; None gives all.
            start: a place to go on after, or the seconds of video before which no frame is given;
                None is the start. A place must be of a decoder with the same `fps`.
            end_s: seconds of video from which on no frame is given; None is the end.
            keep_places: whether `place` will be called.
        """
        self._info = info
        self._limits = limits or Limits()
        self._threads = threads
        self._fps = fps
        self._place = start if isinstance(start, Place) else None
        self._start_s = start.start_s if isinstance(start, Place) else start
        self._end_s = end_s
        self._keep = keep_places
        self._reset()

    def _reset(self, stream: VideoStream | None = None) -> None:
        """Begin at the start of a stream."""
        self.error: str | None = None
        self.decoded = 0
        self.damaged = 0
        self.entered: KeyAt | None = None
        self.keys: deque[KeyAt] = deque(maxlen=_KEYS)
        self._damage: str | None = None
        self._clock = Clock(self._info.fps)
        self._grid: TimeGrid | None = None
        self._filter: PacketFilter | None = None
        self._fingerprint = 0
        self._packets: int | None = 0  # None if the number of those before is not known
        self._cut_short = False  # whether the last packet is
        self._skip_to: int | None = None  # timestamp of the frame at which decoding begins
        self._replays = self._place is not None  # whether the place is still to come
        self._ended = False  # whether `end_s` is reached
        self._seen = False  # whether a frame was decoded, given or not
        self._given = False  # whether a frame was given
        self._pts: int | None = None  # of the last frame given
        self._anchors = Anchors() if self._keep else None
        if stream is not None:
            self._clock.start(stream.start_time)
            if self._fps is not None:
                self._grid = TimeGrid(self._fps, float(stream.time_base or 0))
                self._filter = PacketFilter(self._grid, stream)

    @property
    def clock_restarted(self) -> bool:
        """Whether the clock of the file has restarted since decoding began."""
        return self._clock.restarted

    def place(self) -> Place:
        """The place after the frame that was given last."""
        anchor = self._anchors.best if self._anchors is not None else None
        return Place(self._pts, self._progress(), anchor, self._start_s)

    def frames(self) -> Generator[tuple[int, float, VideoFrame]]:
        """Yield index, time in seconds and the stored picture.

        Raises:
            DecodeError: no frame was readable.
            NothingThere: no frame lies between start and end.
            PlaceLost: the place to go on after was not found.
            StorageError: the file could not be read to its end, or has changed.
        """
        try:
            for way in self._ways():
                with suppress(NoEntry):
                    yield from self._frames_from(way)
                    self._check_given(way)
                    return
        except ProbeError as error:
            raise DecodeError(str(error)) from error
        raise PlaceLost(
            f"{self._info.uri}: the place to go on from is not found, also not from the start of "
            "the file: its pictures are not what they were when the place was saved (the file or "
            "the version of libav has changed); track the video from its start"
        )

    def _ways(self) -> Iterator[Anchor | float | None]:
        """Where to begin decoding, to be tried in this order; None is the start of the file."""
        if self._place is not None:
            if self._place.anchor is not None:
                yield self._place.anchor
        elif self._start_s is not None:
            # After this, what comes before no longer decides anything in clock and grid.
            margin = 2 * max(JUMP_BACK_S, 1 / self._fps if self._fps else 0.0)
            if self._start_s > margin:
                yield self._start_s - margin
        yield None

    def _frames_from(self, way: Anchor | float | None) -> Generator[tuple[int, float, VideoFrame]]:
        """As `frames`, beginning there.

        Raises:
            NoEntry: there is no way from there; no frame was yielded.
        """
        size = self._info.size_bytes
        with open_video(self._info.uri, self._limits, size) as (container, stream, source):
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = self._threads
            self._reset(stream)
            try:
                packets = self._enter(container, stream, way)
                yield from self._read(packets, stream)
            except av.FFmpegError as error:
                self.error = f"reading stopped: {error.strerror}"
            except Exception:
                source.check()
                raise
            source.check()
            if self._replays:
                raise NoEntry
            if self.error is None and not self._ended:
                expected = indexed_frames(container, stream)
                few = self._packets is not None and self._packets < expected
                self.error = self._early_end(self._cut_short or few)

    def _enter(
        self, container: InputContainer, stream: VideoStream, way: Anchor | float | None
    ) -> Iterator[av.Packet]:
        """Seek, and return the packets from there on."""
        if way is None:
            return container.demux(stream)
        if isinstance(way, Anchor):
            entry: Entry = enter_at(container, stream, way)
            if self._filter is not None and way.filter is not None:
                self._filter.restore(way.filter)
        else:
            entry = enter_before(container, stream, way)
        self.entered, self._skip_to, self._packets = entry.key, entry.key.pts, entry.before
        return entry.packets

    def _read(
        self, packets: Iterator[av.Packet], stream: VideoStream
    ) -> Generator[tuple[int, float, VideoFrame]]:
        """Decode packets up to the end of the file or of what was asked for."""
        for packet in packets:
            if self._skips(packet):
                continue
            for frame in self._decode(packet):
                if self._leads(frame):
                    continue
                time_s = self._show(frame, stream)
                if self._ended:
                    return
                if time_s is not None:
                    yield self.decoded - 1, time_s, frame
            if self.decoded >= self._limits.max_frames:
                self.error = (
                    f"stopped after {self.decoded} frames: limits.max_frames is "
                    f"{self._limits.max_frames}"
                )
                return
        if self._filter is not None:
            self._pass(self._filter.skipped_before(None), stream)

    def _skips(self, packet: av.Packet) -> bool:
        """Note a packet; whether it need not be decoded."""
        here = key_at(packet)
        if here is not None:
            self.keys.append(here)
            if self._anchors is not None:
                state = self._filter.state(here.pts) if self._filter is not None else None
                self._anchors.read(here, packet.dts, self._packets, state)
        if packet.size:
            self._cut_short = packet.is_corrupt
            if self._packets is not None:
                self._packets += 1
        return self._filter is not None and self._filter.skips(packet)

    def _decode(self, packet: av.Packet) -> list[VideoFrame]:
        try:
            return [frame for frame in packet.decode() if isinstance(frame, VideoFrame)]
        except av.FFmpegError as error:
            self.damaged += 1
            self._damage = error.strerror
            return []

    def _leads(self, frame: VideoFrame) -> bool:
        """Whether a frame comes before the key frame at which decoding began.

        Such frames refer to pictures before the key frame, so they are not shown.

        Raises:
            NoEntry: the key frame does not come.
        """
        if self._skip_to is None:
            return False
        if frame.pts is None:
            raise NoEntry
        if self._filter is not None:
            self._filter.skipped_before(frame)
        if frame.pts < self._skip_to:
            return True
        if self._place is not None:
            if frame.pts != self._skip_to or self._place.anchor is None:
                raise NoEntry
            self._restore(self._place.anchor.progress)
        self._skip_to = None
        return False

    def _show(self, frame: VideoFrame, stream: VideoStream) -> float | None:
        """Count the next frame; returns its time, None if it is not to be given.

        Raises:
            NoEntry: the frame should be that of the place to go on after, and is not.
        """
        if self._filter is not None:
            self._pass(self._filter.skipped_before(frame), stream)
        if self._anchors is not None:
            self._anchors.show(frame.pts, self._progress)
        self._seen = True
        time_s = self._clock.time(frame.pts, frame.time_base)
        taken = self._grid is None or self._grid.takes(time_s)
        if not self._counts(time_s):
            return None
        if taken:
            self._pts = frame.pts
            if self._anchors is not None or self._replays:
                self._fingerprint = fingerprint(frame, self._fingerprint)
        if self._place is not None and self._replays:
            self._replay(self._place, taken)
            return None
        self._given = self._given or taken
        return time_s if taken else None

    def _replay(self, place: Place, taken: bool) -> None:
        """Go on to a place, and see that nothing differs there.

        Raises:
            NoEntry: something does.
        """
        if self.decoded < place.progress.decoded:
            return
        # Errors of packets before the key frame are not seen again.
        self.damaged = place.progress.damaged
        if not taken or self._pts != place.pts or self._progress() != place.progress:
            raise NoEntry
        self._replays = False

    def _pass(self, timestamps: list[int], stream: VideoStream) -> None:
        """Count frames that were not decoded."""
        for pts in timestamps:
            if not self._ended:
                self._counts(self._clock.time(pts, stream.time_base))

    def _counts(self, time_s: float) -> bool:
        """Count the next frame if it lies between start and end."""
        if self._end_s is not None and time_s >= self._end_s:
            self._ended = True
            return False
        if self._start_s is not None and time_s < self._start_s:
            self.damaged = 0
            return False
        self.decoded += 1
        return True

    def _progress(self) -> Progress:
        interval = self._grid.last if self._grid is not None else -1
        return Progress(self.decoded, self.damaged, self._clock.state, interval, self._fingerprint)

    def _restore(self, progress: Progress) -> None:
        self.decoded, self.damaged, self._clock.state, interval, self._fingerprint = progress
        if self._grid is not None:
            self._grid.last = interval

    def _early_end(self, short: bool) -> str | None:
        """Return a message if the file ends before its header's duration, else None."""
        duration = self._info.duration_s
        known = duration if _HEADER_DURATION & set(self._info.container.split(",")) else None
        end = self._clock.end
        if known is not None:
            short = short or known - end > max(_EARLY_END_S, 0.02 * known)
        if not short:
            return None
        of = f" of {known:.2f} s" if known is not None else ""
        return f"the file ends early: readable up to {end:.2f} s{of}"

    def _check_given(self, way: Anchor | float | None) -> None:
        """Raise an error if there was no frame."""
        if way is None and not self._seen:
            reason = self._damage or self.error or "the file holds no picture"
            raise DecodeError(
                f"not one frame can be decoded: {reason}; damaged packets: {self.damaged}"
            )
        if self._place is None and not self._given:
            end = f"{self._end_s:g} s" if self._end_s is not None else "the end"
            reason = f"the video ends at {self._clock.end:.2f} s"
            if self._ended:
                reason = "there is a gap"
            elif not self._seen:
                reason = f"nothing can be decoded there ({self._damage or self.error})"
            raise NothingThere(
                f"no frame lies between {self._start_s or 0:g} s and {end}: {reason}; "
                "ask for another stretch of it"
            )
