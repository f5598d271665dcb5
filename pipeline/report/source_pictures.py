"""Pictures of a video at chosen times, without decoding all of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from model.net.letterbox import Letterbox
from pipeline.video.clock import Clock
from pipeline.video.errors import DecodeError
from pipeline.video.info import VideoInfo
from pipeline.video.picture import fit
from pipeline.video.probe import ProbeError, open_video

_SEEK_S = 8.0  # a picture closer ahead than this is reached by decoding on
_TOLERANCE_S = 0.001  # times are those of tables, up to rounding


def pictures_at(info: VideoInfo, times_s: Sequence[float]) -> Iterator[tuple[float, np.ndarray]]:
    """Yield chosen pictures with their times; the first at or after each time.

    In a file whose clock jumps, pictures behind the jump may be missing.

    Args:
        info: the video.
        times_s: seconds from the start of the video, as in the tables; ascending, no two equal.

    Yields:
        The time that was asked for, and the picture (H, W, 3) uint8 RGB, upright.

    Raises:
        DecodeError: the file is no video any more.
        StorageError: the file cannot be read.
    """
    box = Letterbox(info.height, info.width, info.height, info.width)
    scaler = VideoReformatter()
    try:
        with open_video(info.uri) as (container, stream, source):
            stream.thread_type = "AUTO"
            frames = _Frames(container, stream, info.fps)
            for time_s in times_s:
                frame = frames.at(time_s)
                source.check()
                if frame is None:
                    return
                yield time_s, fit(frame, box, scaler)
    except ProbeError as error:
        raise DecodeError(str(error)) from error


class _Frames:
    """Reads one container forward, and jumps ahead to a key frame where that is shorter."""

    def __init__(self, container: InputContainer, stream: VideoStream, fps: float | None) -> None:
        self._container, self._stream, self._fps = container, stream, fps
        self._origin = stream.start_time
        self._can_seek = stream.start_time is not None and bool(stream.time_base)
        self._now = 0.0
        self._frames = self._decoded()

    def at(self, time_s: float) -> VideoFrame | None:
        """The first frame at or after a time, None at the end of the file."""
        if self._can_seek and time_s - self._now > _SEEK_S:
            self._seek(time_s)
        for now, frame in self._frames:
            self._now = now
            if now >= time_s - _TOLERANCE_S:
                return frame
        return None

    def _seek(self, time_s: float) -> None:
        ticks = (self._origin or 0) + int(time_s / float(self._stream.time_base or 1))
        try:
            self._container.seek(ticks, stream=self._stream)
        except av.FFmpegError:
            self._can_seek = False  # no index, so decoding goes on from where it is
            return
        self._frames = self._decoded()

    def _decoded(self) -> Iterator[tuple[float, VideoFrame]]:
        clock = Clock(self._fps)
        clock.start(self._origin)
        try:
            for packet in self._container.demux(self._stream):
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    continue  # a damaged packet, as in tracking
                for frame in frames:
                    if isinstance(frame, VideoFrame):
                        yield clock.time(frame.pts, frame.time_base), frame
        except av.FFmpegError:
            return  # the file breaks off here
