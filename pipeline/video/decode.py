"""Frames of a video, in order, upright and with their times; decoding runs ahead in a thread."""

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from av.video.reformatter import VideoReformatter

from model.net.letterbox import Letterbox
from pipeline.video.cuts import CutDetector
from pipeline.video.decoder import Decoder
from pipeline.video.entry import KeyAt
from pipeline.video.errors import DeadlineError
from pipeline.video.info import VideoInfo
from pipeline.video.limits import Limits
from pipeline.video.picture import Cropper, fit, luma_patches
from pipeline.video.place import DecodeState
from pipeline.video.region import Crop
from pipeline.video.still import StillDetector

_POLL_S = 0.1  # a thread that waits for room checks this often whether it should stop
_STOP_WITHIN_S = 10.0  # a thread that takes longer to stop hangs in libav or in a read


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
        cut: whether it is the first frame of a new shot; then it is not still.
        state: of decoding after this frame, if it was asked for.
    """

    index: int
    time_s: float
    image: np.ndarray
    patches: np.ndarray
    still: bool = False
    cut: bool = False
    state: DecodeState | None = None


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
        start: a state to go on after, of a stream with the same `fps` and `skip_still`: from there
            on, all is as if there had been no break. Or the seconds of video at which to begin;
            then frames count from the first one given.
        end_s: seconds of video from which on no frame is given; None is the end.
        keep_states: whether each frame comes with the state after it.
        crop: the part of the displayed picture to give; None is all of it. Nothing outside of it
            is looked at.
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
        start: DecodeState | float | None = None,
        end_s: float | None = None,
        keep_states: bool = False,
        crop: Crop | None = None,
    ) -> None:
        shown = (info.height, info.width) if crop is None else (crop.height, crop.width)
        self.letterbox = Letterbox(*shown, input_height, input_width)
        self._cropper = None if crop is None else Cropper(crop, info.height, info.width)
        self.decode_seconds = 0.0
        self._deadline = deadline
        state = start if isinstance(start, DecodeState) else None
        begin = start.place if isinstance(start, DecodeState) else start
        self._decoder = Decoder(info, limits, threads, fps, begin, end_s, keep_states)
        self._stills = StillDetector(state.still if state else None) if skip_still else None
        self._cuts = CutDetector(state.cuts if state else None)
        self._keep_states = keep_states
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
    def clock_restarted(self) -> bool:
        """Whether the clock of the file has restarted since decoding began."""
        return self._decoder.clock_restarted

    @property
    def entered(self) -> KeyAt | None:
        """The key frame where decoding began, as `Decoder.entered`; final after the first frame."""
        return self._decoder.entered

    @property
    def keys(self) -> list[KeyAt]:
        """The last key frames that were read, as `Decoder.keys`; for use after the iteration."""
        return list(self._decoder.keys)

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
            NothingThere: no frame lies between start and end.
            PlaceLost: the state to go on after does not fit the file.
            DeadlineError: the deadline has passed.
            StorageError: the file could not be read to its end, or has changed.
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
            for index, time_s, whole in frames:
                picture = whole if self._cropper is None else self._cropper.cut(whole)
                patches = luma_patches(picture)
                cut = self._cuts.is_cut(picture)
                stills = self._stills
                if stills is not None and stills.is_still(picture, time_s, patches, cut):
                    item = Frame(index, time_s, *_NO_PICTURE, still=True, state=self._state())
                else:
                    image = fit(picture, self.letterbox, scaler)
                    item = Frame(index, time_s, image, patches, cut=cut, state=self._state())
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

    def _state(self) -> DecodeState | None:
        if not self._keep_states:
            return None
        still = self._stills.state() if self._stills is not None else None
        return DecodeState(self._decoder.place(), still, self._cuts.state())

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
