"""Frames of a sequence under a condition, ready for trackers; made ahead in a thread.

Clean frames of a video are prepared as `vsdmot track` prepares them. Other frames are degraded
upright at native size, so every tracker gets the same pixels. For codec conditions the whole
sequence is re-encoded once, and the file is kept.
"""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Collection, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from PIL import Image

from model.net.letterbox import Letterbox
from pipeline.datasets.layouts import picture_files
from pipeline.datasets.mot import MotError, Sequence
from pipeline.degrade.codec import read_video, write_video
from pipeline.degrade.conditions import CLEAN, Condition
from pipeline.storage.files import create_if_absent, exists, list_videos, open_binary
from pipeline.video.cuts import CutDetector
from pipeline.video.decode import Frame
from pipeline.video.decoder import Decoder
from pipeline.video.info import VideoInfo
from pipeline.video.picture import fit, luma_patches
from pipeline.video.probe import probe

Item = TypeVar("Item")
Canvas = tuple[int, int]
"""Height and width in pixels."""

_AHEAD = 16
_Picture = tuple[int, float, VideoFrame]


@dataclass(frozen=True, slots=True)
class Shot:
    """One frame as students and detectors need it.

    Attributes:
        index: of the frame in its sequence.
        frames: input of students, by canvas.
        native: (H, W, 3) uint8 RGB as displayed; None without detectors.
        decode_s, degrade_s, prepare_s: seconds in the decode thread.
    """

    index: int
    frames: dict[Canvas, Frame]
    native: np.ndarray[Any, Any] | None
    decode_s: float
    degrade_s: float
    prepare_s: float


class SequenceFrames:
    """The frames of one sequence under one condition; iterate once.

    Args:
        sequence: of the frames.
        condition: of the frames.
        limit: index of the frame to end before; None for all.
        canvases: input sizes of the students.
        native: whether to give the picture at native size too, for detectors.
        cache: folder or URL for re-encoded videos.
        first: index of the first frame that is given.

    Raises:
        MotError: the pictures are not of the size that seqinfo.ini says.
        ProbeError, StorageError: the video cannot be opened.
    """

    def __init__(
        self,
        sequence: Sequence,
        condition: Condition,
        limit: int | None,
        canvases: Collection[Canvas],
        native: bool,
        cache: str,
        first: int = 0,
    ) -> None:
        self.sequence, self.condition, self.limit = sequence, condition, limit
        self.first = first
        self._native, self._cache = native, cache
        self._info: VideoInfo | None = None
        self._decoder: Decoder | None = None
        width, height = self._size()
        if (width, height) != (sequence.width, sequence.height):
            raise MotError(
                f"{sequence.video}: pictures are {width}x{height}, "
                f"{sequence.folder / 'seqinfo.ini'} says {sequence.width}x{sequence.height}"
            )
        self.letterboxes = {canvas: Letterbox(height, width, *canvas) for canvas in canvases}
        self._whole = Letterbox(height, width, height, width)
        self.decoded = 0

    @property
    def problem(self) -> str | None:
        """Problem of the frames so far, None if there is none; final after the iteration."""
        error = self._decoder.error if self._decoder else None
        expected = min(self.sequence.length, self.limit or self.sequence.length) - self.first
        if self.decoded == expected:
            return error if self.limit is None else None
        counts = (
            f"{self.sequence.video}: {self.decoded} frames decoded, "
            f"{self.sequence.folder / 'seqinfo.ini'} says {self.sequence.length} (seqLength)"
        )
        return f"{counts}; {error}" if error else counts

    def __iter__(self) -> Iterator[Shot]:
        """Frames in order, made ahead in a thread.

        Raises:
            DecodeError: no frame was readable.
            StorageError: the video could not be read to its end.
        """
        for shot in ahead(self._shots(), _AHEAD):
            self.decoded += 1
            yield shot

    def _size(self) -> tuple[int, int]:
        if self.sequence.video.is_dir():
            pictures = picture_files(self.sequence.video)
            if not pictures:
                raise MotError(f"{self.sequence.video}: holds no picture and there is no video")
            with Image.open(pictures[0]) as first:
                return first.size
        self._info = probe(next(list_videos(str(self.sequence.video))))
        return self._info.width, self._info.height

    def _shots(self) -> Generator[Shot]:
        scaler, cuts = VideoReformatter(), CutDetector()
        codec = self.condition.kind == "codec"
        pictures = self._recoded() if codec else self._clean()
        started = time.perf_counter()
        try:
            for index, time_s, picture in islice(pictures, self.first, self.limit):
                decoded = time.perf_counter()
                shown = picture
                if not codec and self.condition.kind != CLEAN:
                    native = fit(picture, self._whole, scaler)[None]
                    poor = self.condition.degrade(native, self.sequence.name, index)[0]
                    shown = _video_frame(poor)
                degraded = time.perf_counter()
                frames = {}
                if self.letterboxes:
                    patches, cut = luma_patches(shown), cuts.is_cut(shown)
                    for canvas, box in self.letterboxes.items():
                        image = fit(shown, box, scaler)
                        frames[canvas] = Frame(index, time_s, image, patches, cut=cut)
                whole = fit(shown, self._whole, scaler) if self._native else None
                done = time.perf_counter()
                yield Shot(
                    index, frames, whole, decoded - started, degraded - decoded, done - degraded
                )
                started = time.perf_counter()
        finally:
            pictures.close()

    def _clean(self) -> Generator[_Picture]:
        if self._info is not None:
            self._decoder = Decoder(self._info)
            yield from self._decoder.frames()
            return
        for index, path in enumerate(picture_files(self.sequence.video)):
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            yield index, index / self.sequence.frame_rate, _video_frame(pixels)

    def _recoded(self) -> Generator[_Picture]:
        sequence, size = self.sequence, (self.sequence.height, self.sequence.width)
        content = (self._info.video_id if self._info else sequence.name) + f"-{self.limit or 'all'}"
        uri = f"{self._cache}/{content}-{self.condition.name}.mkv"
        if not exists(uri):
            file, scaler = io.BytesIO(), VideoReformatter()
            clean = islice(self._clean(), self.limit)
            natives = (fit(picture, self._whole, scaler) for _, _, picture in clean)
            write_video(natives, self.condition.severity, file)
            create_if_absent(uri, file.getvalue())
        with open_binary(uri) as kept:
            for index, pixels in enumerate(read_video(kept, *size)):
                yield index, index / sequence.frame_rate, _video_frame(pixels)


def ahead(items: Generator[Item], count: int) -> Iterator[Item]:
    """Iterate over a generator that runs in a thread of its own, at most `count` items ahead."""
    end: Any = object()
    waiting: deque[Any] = deque()
    with ThreadPoolExecutor(1, "decode") as thread:
        try:
            for _ in range(count):
                waiting.append(thread.submit(next, items, end))
            while (item := waiting.popleft().result()) is not end:
                waiting.append(thread.submit(next, items, end))
                yield item
        finally:
            for future in waiting:
                future.cancel()
            thread.submit(items.close).result()


def _video_frame(pixels: np.ndarray[Any, Any]) -> VideoFrame:
    return VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
