"""Reads a video's header and first frame, and refuses what is not a video within the limits."""

import io
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice, pairwise
from typing import Any, BinaryIO, cast

import av
from av.container import InputContainer
from av.format import Flags
from av.sidedata.sidedata import Type as SideDataType
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipeline.storage.errors import StorageError
from pipeline.storage.files import ArchiveFile, content_identity, open_binary
from pipeline.storage.identity import video_id
from pipeline.video.errors import FileChanged
from pipeline.video.info import VideoInfo
from pipeline.video.limits import Limits

_FIRST_FRAME_PACKETS = 300  # a stream cut between key frames may need seconds to show a picture
_RATE_ENTRIES = 5000  # index entries looked at to see whether the frame rate varies
_READ_SIZE = 256 * 1024  # bytes a read callback; libav's default of 32 KiB makes many calls
_log_lock = threading.Lock()

# Demuxers of one self-contained file. Left out are those that open other files or URLs (hls, dash,
# concat, image2, sdp, rtsp, vobsub) and those of text and stills (tty, svg, gif, png).
_CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,mpeg1video,mpeg2video,m4v,"
    "asf,asf_o,flv,live_flv,f4v,dv,h261,h263,h264,hevc,vvc,obu,av1,ivf,ivr,mjpeg,mjpeg_2000,mpjpeg,"
    "mxf,mxf_d10,ogg,yuv4mpegpipe,dhav,nut,rm,vc1,vc1test,wtv,nsv,gxf,lxf,pva,ty,smjpeg"
)


_DEFAULTS = Limits()


class ProbeError(ValueError):
    """A file is not a video that can be decoded; the message says why."""

    kind = "input"


class Source:
    """A file for libav that records the first failure of its storage.

    libav may take a failed read for the end of the file. Without the record a broken connection
    would look like a truncated video.
    """

    def __init__(self, file: BinaryIO, uri: str) -> None:
        self.name = uri
        self.failure: Exception | None = None
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """As `read` of a binary file."""
        return self._guard(self._file.read, size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """As `seek` of a binary file."""
        return self._guard(self._file.seek, offset, whence)

    def tell(self) -> int:
        """As `tell` of a binary file."""
        return self._guard(self._file.tell)

    def check(self) -> None:
        """Raise StorageError if a read has failed."""
        if self.failure is not None:
            raise StorageError(
                f"cannot read {self.name}: {self.failure or type(self.failure).__name__}; "
                "check that the storage can be reached, then run again"
            ) from self.failure

    def _guard(self, call: Any, *arguments: int) -> Any:
        try:
            return call(*arguments)
        except Exception as error:
            self.failure = self.failure or error
            raise


@contextmanager
def open_video(
    uri: str, limits: Limits = _DEFAULTS, size_bytes: int | None = None
) -> Iterator[tuple[InputContainer, VideoStream, Source]]:
    """Open a video and choose its picture stream; pictures beyond the limits do not decode.

    libav gets an open file instead of a path, is limited to containers of one file, and may open
    no other file. So a playlist in the archive cannot read other files or the network.

    Args:
        uri: the file.
        limits: bounds on pictures.
        size_bytes: the size that the file must have; None takes any.

    Raises:
        ProbeError: nothing in the file can be decoded.
        FileChanged: it has another size.
        StorageError: the file cannot be read.
    """
    with open_binary(uri) as file:
        source = Source(file, uri)
        if size_bytes is not None:
            _check_size(source, size_bytes)
        try:
            container = _open_container(source, limits)
        except Exception as error:
            source.check()
            # Errors of libav, and ValueError of PyAV for text in headers that is not UTF-8.
            if not isinstance(error, (av.FFmpegError, OSError, ValueError)):
                raise
            file.seek(0)
            raise ProbeError(f"not a video: {_explain(source, limits, error)}") from error
        with container:
            stream = _picture_stream(container)
            stream.codec_context.options = {"max_pixels": str(limits.max_pixels)}
            yield container, stream, source


def probe(file: ArchiveFile, limits: Limits = _DEFAULTS) -> VideoInfo:
    """Read a video's header and its first frame, which holds the rotation.

    Raises:
        ProbeError: empty, not a video, no picture track, no decoder for it, or beyond a limit.
        StorageError: the file cannot be read.
    """
    identifier = video_id(file.relative_path, content_identity(file))
    if file.size == 0:
        raise ProbeError("the file is empty (0 bytes)")
    with open_video(file.uri, limits) as (container, stream, source):
        codec = stream.codec_context
        duration = _duration(container, stream)
        fps = float(stream.average_rate) if stream.average_rate else None
        frames = indexed_frames(container, stream) or stream.frames
        if not frames and duration and fps:
            frames = round(duration * fps)
        variable = _variable_rate(stream)
        first = first_frame(container, stream)
        source.check()
        width, height = (first or codec).width, (first or codec).height
        if width < 1 or height < 1:
            raise ProbeError(
                f"no frame could be decoded ({codec.name}), and the header has no size"
            )
        turns, _ = orientation(first) if first is not None else (0, False)
        info = VideoInfo(
            video_id=identifier,
            uri=file.uri,
            relative_path=file.relative_path,
            size_bytes=file.size,
            container=container.format.name,
            codec=codec.name,
            pixel_format=first.format.name if first else codec.pix_fmt or "unknown",
            width=height if turns % 2 else width,
            height=width if turns % 2 else height,
            rotation=90 * turns,
            fps=fps,
            time_base=str(stream.time_base),
            variable_rate=variable,
            frames_expected=frames or None,
            duration_s=duration,
        )
    refusal = limits.refusal(info)
    if refusal is not None:
        raise ProbeError(f"refused: {refusal}")
    return info


def first_frame(container: InputContainer, stream: VideoStream) -> VideoFrame | None:
    """Return the first frame that decodes, None if the start is too damaged to show one."""
    stream.thread_type = "SLICE"  # frame threads would read far beyond the first frame
    try:
        for packet in islice(container.demux(stream), _FIRST_FRAME_PACKETS):
            try:
                for frame in packet.decode():
                    if isinstance(frame, VideoFrame):
                        return frame
            except av.FFmpegError:
                continue  # a damaged packet; a later one may do
    except av.FFmpegError:
        return None
    return None


def orientation(frame: VideoFrame) -> tuple[int, bool]:
    """Return how a player shows a stored picture: mirrored or not, then turned.

    Read from the display matrix, because libav's angle does not tell mirroring from a half turn.
    A stored point (x, y), y downwards, is shown at (a x + c y, b x + d y). Angles between quarter
    turns are rounded to the nearest.

    Returns:
        Clockwise quarter turns, and whether left and right are swapped before turning.
    """
    try:
        # The type stub wrongly has a plain dict here.
        matrix = cast(Any, frame.side_data)[SideDataType.DISPLAYMATRIX]
    except KeyError:
        return 0, False
    a, b, _, c, d, *_ = struct.unpack("9i", bytes(matrix))
    mirrored = a * d - b * c < 0
    if mirrored:  # undo the swap of left and right that comes first
        a, b = -a, -b
    if abs(a) >= abs(b):
        return (0 if a >= 0 else 2), mirrored
    return (1 if b > 0 else 3), mirrored


def indexed_frames(container: InputContainer, stream: VideoStream) -> int:
    """Return the number of frames in the header's index; 0 if the container has no such index.

    Only MP4 and its relatives have one: a complete sample table, with edit lists applied.
    """
    if "mp4" not in container.format.name.split(","):
        return 0
    return min(stream.frames, len(stream.index_entries))


def _check_size(source: Source, size_bytes: int) -> None:
    """Raise FileChanged if a file has another size; leaves it at its start."""
    try:
        size = source.seek(0, io.SEEK_END)
        source.seek(0)
    except Exception:
        source.check()
        raise
    if size != size_bytes:
        raise FileChanged(
            f"{source.name} has changed: it has {size} bytes, and had {size_bytes} when its header "
            "was read; run again when nothing writes to it any more"
        )


def _open_container(source: Source, limits: Limits) -> InputContainer:
    return av.open(
        source,
        "r",
        io_open=_refuse,
        buffer_size=_READ_SIZE,
        # For decoders that complete the header from the first frames.
        options={"max_pixels": str(limits.max_pixels)},
        container_options={"protocol_whitelist": "none", "format_whitelist": _CONTAINERS},
        metadata_errors="replace",
    )


def _refuse(url: str, flags: int, options: dict[str, str]) -> BinaryIO:
    raise PermissionError(f"the file refers to another one ({url}), which is not opened")


def _explain(source: Source, limits: Limits, error: Exception) -> str:
    """Return libav's message why a file does not open, from a second try with its log on.

    The log is off otherwise, because all threads of the process share it.
    """
    message = getattr(error, "strerror", None) or str(error)
    with _log_lock:
        level, skip = av.logging.get_level(), av.logging.get_skip_repeated()
        av.logging.set_level(av.logging.ERROR)
        av.logging.set_skip_repeated(False)  # the last file may have had the same message
        try:
            with av.logging.Capture() as logs, suppress(av.FFmpegError, OSError, ValueError):
                _open_container(source, limits).close()  # fails again, with a log
        finally:
            av.logging.set_level(level)
            av.logging.set_skip_repeated(skip)
    details = [text.strip() for _, _, text in logs if text.strip()]
    return f"{message} ({details[-1]})" if details else message


def _picture_stream(container: InputContainer) -> VideoStream:
    attached = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & attached]
    if not streams:
        kinds = sorted({s.type for s in container.streams if s.type != "video"})
        raise ProbeError(f"no picture track; the file holds: {', '.join(kinds) or 'nothing'}")
    usable = [stream for stream in streams if stream.codec_context is not None]
    if not usable:
        raise ProbeError("unsupported codec: no decoder for the picture track")
    best = container.streams.best("video")
    return next((stream for stream in usable if stream is best), usable[0])


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Return seconds: the shorter of what track and container say, as edit lists cut either.

    An elementary stream has no clock. For it libav would divide the size by a guessed bit rate.
    """
    if container.format.flags & cast(int, Flags.no_timestamps.value):
        return None
    found = []
    if stream.duration and stream.time_base:
        found.append(float(stream.duration * stream.time_base))
    if container.duration:
        found.append(container.duration / av.time_base)
    return min(found, default=None)


def _variable_rate(stream: VideoStream) -> bool:
    entries = list(islice(stream.index_entries, _RATE_ENTRIES))
    if stream.frames > 2 and len(entries) >= min(stream.frames, _RATE_ENTRIES):
        times = [entry.timestamp for entry in entries]
        gaps = sorted(b - a for a, b in pairwise(times))
        middle = gaps[len(gaps) // 2]
        # Rounding to the time base moves a gap by up to a tick each way.
        slack = max(1.5, 0.1 * middle)
        return gaps[-1] - middle > slack or middle - gaps[0] > slack
    if not stream.average_rate or not stream.base_rate:
        return False
    ratio = float(stream.base_rate / stream.average_rate)
    # The base rate of interlaced video counts fields, twice the frames.
    return min(abs(ratio - 1), abs(ratio - 2)) > 0.01
