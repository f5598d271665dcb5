"""Frames of a video, in order, upright and with their times; decoding runs ahead in a thread."""

import queue
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from model.net.letterbox import Letterbox
from pipeline.video.clock import Clock
from pipeline.video.info import VideoInfo
from pipeline.video.limits import Limits
from pipeline.video.picture import fit, luma_patches
from pipeline.video.probe import ProbeError, indexed_frames, open_video
from pipeline.video.sampling import PacketFilter, TimeGrid
from pipeline.video.still import StillDetector

_POLL_S = 0.1  # a thread that waits for room checks this often whether it should stop
_STOP_WITHIN_S = 10.0  # a thread that takes longer to stop hangs in libav or in a read
_EARLY_END_S = 1.0  # a video may end this much before its header's duration: audio may be longer
_HEADER_DURATION = frozenset({"mp4", "matroska", "asf", "flv"})  # elsewhere libav estimates it


_NO_PICTURE = np.empty((0, 0, 3), np.uint8), np.empty((0, 0, 0), np.uint8)


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture ready for the model.

    Attributes:
        index: frames of the file before this one; those that are left out count.
        time_s: seconds since the start of the video, from its own timestamps.
        image: (input_height, input_width, 3) uint8 RGB, letterboxed, upright; empty if still.
        patches: (8, 64, 64) uint8 luma from 0 (black) to 255 (white), whatever range the file
            stores. Cut from the stored picture before rotation and scaling. Empty if still.
        still: whether it shows nothing new since the last frame that is not still.
    """

    index: int
    time_s: float
    image: np.ndarray
    patches: np.ndarray
    still: bool = False


class DecodeError(ValueError):
    """No frame of a video could be read; the message says why."""


class DeadlineError(TimeoutError):
    """A video took longer than allowed; the message says how far it was.

    Attributes:
        hangs: whether the decoder's thread is stuck and could not be stopped.
    """

    hangs = False


class Decoder:
    """Decode a video's frames one after another in the calling thread.

    A damaged packet is skipped and counted in `damaged`. `decoded` counts the frames read so far;
    those that `fps` leaves out count, though some of them need no decoding. After the last frame
    `error` says why decoding stopped before the end of the video; it is None if it reached the end.
    """

    def __init__(
        self,
        info: VideoInfo,
        limits: Limits | None = None,
        threads: int = 0,
        fps: float | None = None,
    ) -> None:
        """Take a video.

        Args:
            info: the video.
            limits: bounds on pictures and their number.
            threads: threads of libav; 0 is one for each core.
            fps: frames to give a second, see `TimeGrid`; None gives all.
        """
        self.error: str | None = None
        self.decoded = 0
        self.damaged = 0
        self._damage: str | None = None
        self._info = info
        self._limits = limits or Limits()
        self._clock = Clock(info.fps)
        self._threads = threads
        self._fps = fps

    def frames(self) -> Generator[tuple[int, float, VideoFrame]]:
        """Yield index, time in seconds and the stored picture.

        Raises:
            DecodeError: no frame was readable.
            StorageError: the file could not be read to its end.
        """
        try:
            with open_video(self._info.uri, self._limits) as (container, stream, source):
                stream.thread_type = "AUTO"
                stream.codec_context.thread_count = self._threads
                self._clock.start(stream.start_time)
                grid = self._grid(stream)
                skip = PacketFilter(grid, stream) if grid is not None else None
                packets, cut_short = 0, False
                try:
                    for packet in container.demux(stream):
                        packets += packet.size > 0
                        cut_short = packet.is_corrupt if packet.size else cut_short
                        if skip is not None and skip.skips(packet):
                            continue
                        for frame in self._decode(packet):
                            if skip is not None:
                                self._pass(skip.skipped_before(frame), stream)
                            time_s = self._clock.time(frame.pts, frame.time_base)
                            if grid is None or grid.takes(time_s):
                                yield self.decoded, time_s, frame
                            self.decoded += 1
                        if self.decoded >= self._limits.max_frames:
                            self.error = (
                                f"stopped after {self.decoded} frames: limits.max_frames is "
                                f"{self._limits.max_frames}"
                            )
                            break
                    else:
                        if skip is not None:
                            self._pass(skip.skipped_before(None), stream)
                except av.FFmpegError as error:
                    self.error = f"reading stopped: {error.strerror}"
                except Exception:
                    source.check()
                    raise
                source.check()
                if self.error is None:
                    short = cut_short or packets < indexed_frames(container, stream)
                    self.error = self._early_end(short)
        except ProbeError as error:
            raise DecodeError(str(error)) from error
        if self.decoded == 0:
            reason = self._damage or self.error or "the file holds no picture"
            raise DecodeError(
                f"not one frame can be decoded: {reason}; damaged packets: {self.damaged}"
            )

    def _grid(self, stream: VideoStream) -> TimeGrid | None:
        if self._fps is None:
            return None
        return TimeGrid(self._fps, float(stream.time_base or 0))

    def _pass(self, timestamps: list[int], stream: VideoStream) -> None:
        """Count frames that were not decoded."""
        for pts in timestamps:
            self._clock.time(pts, stream.time_base)
            self.decoded += 1

    def _decode(self, packet: av.Packet) -> list[VideoFrame]:
        try:
            return [frame for frame in packet.decode() if isinstance(frame, VideoFrame)]
        except av.FFmpegError as error:
            self.damaged += 1
            self._damage = error.strerror
            return []

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


class FrameStream:
    """Frames of one video, decoded ahead by a daemon thread into a bounded queue.

    Use as a context manager; leaving it stops the thread wherever it is. Iterate once.

    Args:
        info: the video.
        input_height, input_width: the model's canvas in pixels.
        queue_size: frames decoded ahead.
        limits: bounds on pictures and their number.
        deadline: time by `time.monotonic` at which waiting for frames ends.
        threads: threads of libav; 0 is one for each core.
        fps: frames to give a second, see `TimeGrid`; None gives all.
        skip_still: whether to look for still frames, which come without picture.
    """

    def __init__(
        self,
        info: VideoInfo,
        input_height: int,
        input_width: int,
        queue_size: int = 16,
        limits: Limits | None = None,
        deadline: float | None = None,
        threads: int = 0,
        fps: float | None = None,
        skip_still: bool = False,
    ) -> None:
        self.letterbox = Letterbox(info.height, info.width, input_height, input_width)
        self.decode_seconds = 0.0
        self._deadline = deadline
        self._decoder = Decoder(info, limits, threads, fps)
        self._stills = StillDetector() if skip_still else None
        self._queue: queue.Queue[Frame | Exception | None] = queue.Queue(queue_size)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="decode", daemon=True)

    @property
    def error(self) -> str | None:
        """Why decoding stopped before the end; final once the iteration has ended."""
        return self._decoder.error

    @property
    def decoded(self) -> int:
        """Frames read so far, as `Decoder.decoded`."""
        return self._decoder.decoded

    @property
    def hangs(self) -> bool:
        """Whether the thread did not stop when the stream was left; a thread cannot be killed."""
        return self._stop.is_set() and self._thread.is_alive()

    @property
    def damaged(self) -> int:
        """Damaged packets skipped so far."""
        return self._decoder.damaged

    def __enter__(self) -> Self:
        """Start decoding."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the thread, and wait a limited time for its current frame; see `hangs`."""
        self._stop.set()
        self._thread.join(_STOP_WITHIN_S)
        if isinstance(error, DeadlineError):
            error.hangs = self.hangs

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames in order, to the end or to the first error that cannot be skipped.

        Raises:
            DecodeError: no frame was readable.
            DeadlineError: the deadline has passed.
            StorageError: the file could not be read to its end.
        """
        while (item := self._next()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    def _next(self) -> Frame | Exception | None:
        if self._deadline is None:
            return self._queue.get()
        left = self._deadline - time.monotonic()
        try:
            if left > 0:
                return self._queue.get(timeout=left)
        except queue.Empty:
            doing = "waiting for the decoder"
        else:
            doing = "tracking"
        raise DeadlineError(f"out of time after {self.decoded} decoded frames, {doing}")

    def _run(self) -> None:
        frames = self._decoder.frames()
        try:
            scaler = VideoReformatter()
            started = time.perf_counter()
            for index, time_s, picture in frames:
                patches = luma_patches(picture)
                if self._stills is not None and self._stills.is_still(picture, time_s, patches):
                    item = Frame(index, time_s, *_NO_PICTURE, still=True)
                else:
                    image = fit(picture, self.letterbox, scaler)
                    item = Frame(index, time_s, image, patches)
                self.decode_seconds += time.perf_counter() - started
                if not self._put(item):
                    return
                started = time.perf_counter()
            self.decode_seconds += time.perf_counter() - started
        except Exception as error:
            # Raised again in the thread that reads the frames.
            self._put(error)
        else:
            self._put(None)
        finally:
            frames.close()

    def _put(self, item: Frame | Exception | None) -> bool:
        """Queue an item, waiting for room; False if the stream was closed meanwhile."""
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_POLL_S)
                return True
            except queue.Full:
                continue
        return False


def iterate_frames(info: VideoInfo) -> Iterator[tuple[int, float, np.ndarray]]:
    """Yield index, time in seconds and the upright picture (H, W, 3) uint8 RGB at native size.

    A picture whose size changes in mid-stream is scaled to the video's size.

    Raises:
        DecodeError: no frame was readable.
        StorageError: the file could not be read to its end.
    """
    box = Letterbox(info.height, info.width, info.height, info.width)
    scaler = VideoReformatter()
    for index, time_s, picture in Decoder(info).frames():
        yield index, time_s, fit(picture, box, scaler)
