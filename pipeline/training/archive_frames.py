"""Unlabelled frames of an archive at random times, cropped, letterboxed and degraded.

Everything drawn for a frame comes from (seed, index), so frame i is the same in every run. A
video that cannot be read is passed over by the next draw of the same index.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from PIL import Image
from torch.utils.data import Dataset

from model.learn.frame_loss import FrameBatch
from model.net.letterbox import Letterbox
from model.net.quality import sample_patches
from model.teach.teacher import TeacherFeatures
from pipeline.degrade.kinds import degrade, frame_severities
from pipeline.storage.files import StorageError
from pipeline.tracking.archive import find_videos
from pipeline.tracking.plan import Unreadable, survey
from pipeline.training.config import FrameConfig
from pipeline.training.feature_cache import FeatureCache, FrameKey
from pipeline.video.canvas import LONGEST, grey, letterboxed
from pipeline.video.decode import DecodeError
from pipeline.video.info import VideoInfo
from pipeline.video.picture import fit
from pipeline.video.probe import ProbeError, open_video

_ATTEMPTS = 100  # draws for one frame before the archive is given up
_WHOLE = 0.4  # share of frames shown whole


class FramesError(ValueError):
    """An archive out of which no frame can be had; the message says why."""


@dataclass(frozen=True, slots=True)
class FrameView:
    """A part of one frame of a video: where to look, known before anything is decoded.

    Attributes:
        video: the video.
        time_s: seconds from its start; the frame shown then.
        crop: x, y, width, height in pixels of the displayed frame.
        flip: whether left and right are exchanged.
    """

    video: VideoInfo
    time_s: float
    crop: tuple[int, int, int, int]
    flip: bool

    @property
    def key(self) -> FrameKey:
        """What its features are found by."""
        crop = "{}x{}+{}+{}".format(*self.crop[2:], *self.crop[:2]) + ("-" if self.flip else "")
        return FrameKey(self.video.video_id, round(self.time_s * 1e6), crop)


class ArchiveFrames(Dataset[dict[str, Any]]):
    """Frame `index` of an endless, seeded stream."""

    def __init__(
        self,
        videos: Sequence[VideoInfo],
        config: FrameConfig,
        seed: int,
        cache: FeatureCache | None = None,
    ) -> None:
        self.videos, self.config, self.seed, self.cache = list(videos), config, seed, cache
        # Longer videos hold more to learn, but less than in proportion.
        weight = np.sqrt([max(1.0, video.duration_s or 1.0) for video in self.videos])
        self._chance = weight / weight.sum()
        self._closed: dict[str, str] = {}

    def views(self, index: int) -> Iterator[FrameView]:
        """What is drawn for a frame: the first of these that can be read is taken."""
        if pool := self.config.pool:
            epoch, place = divmod(index, pool)
            index = int(np.random.default_rng([self.seed, epoch, 1]).permutation(pool)[place])
        for attempt in range(_ATTEMPTS):
            random = np.random.default_rng([self.seed, index, attempt, 2])
            video = self.videos[int(random.choice(len(self.videos), p=self._chance))]
            time_s = float(random.random()) * max(0.0, video.duration_s or 0.0)
            crop = _draw_crop(video.width, video.height, self.config, random)
            yield FrameView(video, round(time_s, 3), crop, bool(random.random() < 0.5))

    def look(self, index: int) -> tuple[FrameView, np.ndarray, list[str]]:
        """The view of a frame, its pixels (h, w, 3) uint8 RGB, and what could not be read.

        Raises:
            FramesError: draw after draw, nothing could be read.
        """
        problems: list[str] = []
        for view in self.views(index):
            uri = view.video.uri
            if uri in self._closed:
                continue
            try:
                return view, _cut(read_frame(view.video, view.time_s), view), problems
            except ProbeError as error:
                # Of the file, whatever the time: it need not be opened again.
                self._closed[uri] = str(error)
                problems.append(f"{uri}: {error}")
            except (DecodeError, StorageError) as error:
                problems.append(f"{uri}: {error}")
        said = "; ".join(problems or [f"{u}: {e}" for u, e in list(self._closed.items())[:3]])
        raise FramesError(
            f"no readable frame in {_ATTEMPTS} draws from {len(self.videos)} videos: {said}; "
            "run vsdmot track on the archive; its dead letters name the broken files"
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The arrays of one frame, named as in `FrameBatch` but without the N axis."""
        view, pixels, problems = self.look(index)
        random = np.random.default_rng([self.seed, index, 3])
        kind = self.config.kinds[int(random.integers(len(self.config.kinds)))]
        severity, seed = int(random.integers(1, 6)), int(random.integers(2**31))
        start = int(random.integers(200))  # anywhere in a long video: a swing starts near clean
        poor, level = pixels, 0.0
        if random.random() < self.config.degraded:
            poor = degrade(pixels[None], kind, severity, seed, start)[0]
            level = float(frame_severities(kind, severity, seed, 1, start)[0])
        image, size = letterboxed(poor, self.config.height, self.config.width)
        clean, _ = letterboxed(pixels, self.config.height, self.config.width)
        item: dict[str, Any] = {
            "images": image,
            "clean": clean,
            "valid": torch.tensor(size),
            "patches": torch.from_numpy(sample_patches(grey(poor))),
            "severity": torch.tensor(level, dtype=torch.float32),
        }
        if self.cache is not None:
            dense, pooled, seen = self.cache.features(view.key)
            item |= {"dense": dense, "pooled": pooled, "seen": seen}
        return item | {"name": view.video.relative_path, "problems": problems}


def read_archive_videos(root: str, output: str, threads: int) -> tuple[list[VideoInfo], list[str]]:
    """The videos below a folder or URL, and a line for each file that is none.

    Raises:
        StorageError: the archive cannot be listed, or there is no file of a video's name.
        FramesError: not one of them is a video.
    """
    videos, broken = [], []
    for found in survey(find_videos(root, output), {}, threads):
        if isinstance(found, Unreadable):
            broken.append(f"{found.uri}: {found.error}")
        else:
            videos.append(found)
    if not videos:
        raise FramesError(
            f"{root}: not one of {len(broken)} files can be read as a video; the first is "
            f"{broken[0]}"
        )
    return videos, broken


def read_frame(info: VideoInfo, time_s: float) -> np.ndarray:
    """The picture shown at a time, upright at native size: (H, W, 3) uint8 RGB.

    Raises:
        ProbeError: the file cannot be opened.
        DecodeError: nothing can be decoded from there to the end.
        StorageError: the file could not be read.
    """
    with open_video(info.uri) as (container, stream, source):
        stream.thread_type = "NONE"
        base = stream.time_base
        wanted = (stream.start_time or 0) + (round(time_s / base) if base else 0)
        last: VideoFrame | None = None
        try:
            container.seek(wanted, stream=stream, backward=True)
            for frame in container.decode(stream):
                if frame.pts is not None and frame.pts > wanted and last is not None:
                    break
                last = frame
                if frame.pts is not None and frame.pts >= wanted:
                    break
        except av.FFmpegError as error:
            if last is None:
                source.check()
                reason = f"not one frame from {time_s:.2f} s on can be decoded: {error.strerror}"
                raise DecodeError(reason) from error
        source.check()
        if last is None:
            raise DecodeError(f"there is no frame from {time_s:.2f} s on")
        box = Letterbox(info.height, info.width, info.height, info.width)
        return fit(last, box, VideoReformatter())


def _draw_crop(
    width: int, height: int, config: FrameConfig, random: np.random.Generator
) -> tuple[int, int, int, int]:
    """The whole picture, or a part of about the canvas's shape."""
    if random.random() < _WHOLE:
        return 0, 0, width, height
    aspect = config.width / config.height * math.exp(random.uniform(-0.25, 0.25))
    wide = width * math.exp(random.uniform(math.log(0.4), 0))
    high = min(height, wide / aspect)
    w, h = max(1, round(min(wide, high * aspect * 1.15))), max(1, round(high))
    return int(random.integers(width - w + 1)), int(random.integers(height - h + 1)), w, h


def _cut(picture: np.ndarray, view: FrameView) -> np.ndarray:
    x, y, w, h = view.crop
    pixels = picture[y : y + h, x : x + w]
    pixels = pixels[:, ::-1] if view.flip else pixels
    if max(w, h) > LONGEST:
        factor = LONGEST / max(w, h)
        size = (max(1, round(w * factor)), max(1, round(h * factor)))
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    return np.ascontiguousarray(pixels)


def collate_frames(items: list[dict[str, Any]]) -> FrameBatch:
    """A batch of what `ArchiveFrames` gives."""
    items = [dict(item) for item in items]
    names = tuple(item.pop("name") for item in items)
    problems = tuple(line for item in items for line in item.pop("problems"))
    columns = {key: torch.stack([item[key] for item in items]) for key in items[0]}
    features = None
    if "dense" in columns:
        features = TeacherFeatures(*(columns.pop(key) for key in ("dense", "pooled", "seen")))
    return FrameBatch(**columns, names=names, features=features, problems=problems)
