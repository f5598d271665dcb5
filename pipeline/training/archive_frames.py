"""Unlabelled frames of an archive at random times, cropped, letterboxed and degraded.

All draws of a frame depend on (seed, index) alone, so frame i is the same in every run. If a video
cannot be read, the same index draws again, from the next random numbers.
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
from model.teach.scaled import scaled_size
from model.teach.teacher import TeacherFeatures
from pipeline.archive.inputs import find_files
from pipeline.archive.survey import Unread, Unreadable, survey
from pipeline.degrade.kinds import degrade, frame_severities
from pipeline.storage.files import StorageError
from pipeline.training.config import FrameConfig
from pipeline.training.feature_cache import FeatureCache, FrameKey
from pipeline.video.canvas import LONGEST, grey, letterboxed
from pipeline.video.errors import DecodeError
from pipeline.video.info import VideoInfo
from pipeline.video.picture import fit
from pipeline.video.probe import ProbeError, open_video

_ATTEMPTS = 100  # draws of one frame before the archive counts as unreadable
_WHOLE_SHARE = 0.4  # share of frames that are not cropped


class FramesError(ValueError):
    """No frame of the archive can be read; the message says why."""


@dataclass(frozen=True, slots=True)
class FrameView:
    """A crop of one frame of a video. It is drawn before anything is decoded.

    Attributes:
        video: the video.
        time_s: time of the frame, in seconds from the start of the video.
        crop: x, y, width, height in pixels of the displayed frame.
        flip: whether the crop is mirrored from left to right.
    """

    video: VideoInfo
    time_s: float
    crop: tuple[int, int, int, int]
    flip: bool

    @property
    def key(self) -> FrameKey:
        """Key of its features in a feature cache."""
        crop = "{}x{}+{}+{}".format(*self.crop[2:], *self.crop[:2]) + ("-" if self.flip else "")
        return FrameKey(self.video.video_id, round(self.time_s * 1e6), crop)


class ArchiveFrames(Dataset[dict[str, Any]]):
    """An endless, seeded stream of frames; item `index` depends on (seed, index) alone.

    Args:
        videos: to draw from, at least one.
        config: settings of the frames.
        seed: of all draws.
        cache: features of the teacher, which are added to the items; None adds none.
        clean_scale: sides of the clean frames, as a multiple of the canvas.
    """

    def __init__(
        self,
        videos: Sequence[VideoInfo],
        config: FrameConfig,
        seed: int,
        cache: FeatureCache | None = None,
        clean_scale: float = 1.0,
    ) -> None:
        self.videos, self.config, self.seed, self.cache = list(videos), config, seed, cache
        self.clean_scale = clean_scale
        # A longer video has more to learn from, but less than in proportion to its length.
        weight = np.sqrt([max(1.0, video.duration_s or 1.0) for video in self.videos])
        self._chance = weight / weight.sum()
        self._unreadable: dict[str, str] = {}  # error by URI

    @property
    def clean_canvas(self) -> tuple[int, int]:
        """Height and width in pixels of the canvas of clean frames."""
        return scaled_size((self.config.height, self.config.width), self.clean_scale)

    def views(self, index: int) -> Iterator[FrameView]:
        """Yield the views drawn for an index; the first one that can be read is used."""
        if pool := self.config.pool:
            epoch, place = divmod(index, pool)
            index = int(np.random.default_rng([self.seed, epoch, 1]).permutation(pool)[place])
        for attempt in range(_ATTEMPTS):
            random = np.random.default_rng([self.seed, index, attempt, 2])
            video = self.videos[int(random.choice(len(self.videos), p=self._chance))]
            time_s = float(random.random()) * max(0.0, video.duration_s or 0.0)
            crop = _draw_crop(video.width, video.height, self.config, random)
            yield FrameView(video, round(time_s, 3), crop, bool(random.random() < 0.5))

    def read(self, index: int) -> tuple[FrameView, np.ndarray, list[str]]:
        """Read the frame of an index.

        Returns:
            its view, its pixels (h, w, 3) uint8 RGB, and a line for each view that could not be
            read before it.

        Raises:
            FramesError: none of the views drawn for the index could be read.
        """
        problems: list[str] = []
        for view in self.views(index):
            uri = view.video.uri
            if uri in self._unreadable:
                continue
            try:
                return view, _cut(read_frame(view.video, view.time_s), view), problems
            except ProbeError as error:
                # The file cannot be opened, whatever the time, so it is not tried again.
                self._unreadable[uri] = str(error)
                problems.append(f"{uri}: {error}")
            except (DecodeError, StorageError) as error:
                problems.append(f"{uri}: {error}")
        known = [f"{uri}: {error}" for uri, error in list(self._unreadable.items())[:3]]
        raise FramesError(
            f"no readable frame in {_ATTEMPTS} draws from {len(self.videos)} videos: "
            f"{'; '.join(problems or known)}; "
            "run vsdmot track on the archive; its dead letters name the broken files"
        )

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the arrays of one frame, named as in `FrameBatch` but without the N axis."""
        view, pixels, problems = self.read(index)
        random = np.random.default_rng([self.seed, index, 3])
        kind = self.config.kinds[int(random.integers(len(self.config.kinds)))]
        severity, seed = int(random.integers(1, 6)), int(random.integers(2**31))
        start = int(
            random.integers(200)
        )  # anywhere in a long video, because `swing` starts near clean
        shown, level = pixels, 0.0
        if random.random() < self.config.degraded:
            shown = degrade(pixels[None], kind, severity, seed, start)[0]
            level = float(frame_severities(kind, severity, seed, 1, start)[0])
        image, size = letterboxed(shown, self.config.height, self.config.width)
        clean, _ = letterboxed(pixels, *self.clean_canvas)
        item: dict[str, Any] = {
            "images": image,
            "clean": clean,
            "valid": torch.tensor(size),
            "patches": torch.from_numpy(sample_patches(grey(shown))),
            "severity": torch.tensor(level, dtype=torch.float32),
        }
        if self.cache is not None:
            dense, pooled, valid = self.cache.features(view.key)
            item |= {"dense": dense, "pooled": pooled, "dense_valid": valid}
        return item | {"name": view.video.relative_path, "problems": problems}


def read_archive_videos(root: str, output: str, threads: int) -> tuple[list[VideoInfo], list[str]]:
    """The videos below a folder or URL, and a line for each file that is not a readable video.

    Raises:
        StorageError: the archive cannot be listed, or no file has the name of a video.
        FramesError: none of the files can be read as a video.
    """
    videos, broken = [], []
    for found in survey(find_files(root, output), threads):
        if isinstance(found, Unread):
            raise StorageError(found.reason)
        if isinstance(found, Unreadable):
            broken.append(f"{found.uri}: {found.error}")
        else:
            videos.append(found)
    if not videos:
        raise FramesError(
            f"{root}: none of {len(broken)} files can be read as a video; the first error is "
            f"{broken[0]}; give a folder with videos that ffmpeg can decode"
        )
    return videos, broken


def read_frame(info: VideoInfo, time_s: float) -> np.ndarray:
    """The picture shown at a time, upright at native size: (H, W, 3) uint8 RGB.

    Raises:
        ProbeError: the file cannot be opened.
        DecodeError: no frame from that time on can be decoded.
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
                reason = f"no frame from {time_s:.2f} s on can be decoded: {error.strerror}"
                raise DecodeError(reason) from error
        source.check()
        if last is None:
            raise DecodeError(f"there is no frame from {time_s:.2f} s on")
        box = Letterbox(info.height, info.width, info.height, info.width)
        return fit(last, box, VideoReformatter())


def _draw_crop(
    width: int, height: int, config: FrameConfig, random: np.random.Generator
) -> tuple[int, int, int, int]:
    """Draw the whole picture, or a crop with about the aspect ratio of the canvas."""
    if random.random() < _WHOLE_SHARE:
        return 0, 0, width, height
    aspect = config.width / config.height * math.exp(random.uniform(-0.25, 0.25))
    wide = width * math.exp(random.uniform(math.log(0.4), 0))
    high = min(height, wide / aspect)
    w, h = max(1, round(min(wide, high * aspect * 1.15))), max(1, round(high))
    return int(random.integers(width - w + 1)), int(random.integers(height - h + 1)), w, h


def _cut(picture: np.ndarray, view: FrameView) -> np.ndarray:
    """Crop and flip a picture (H, W, 3); a crop longer than `LONGEST` is scaled down."""
    x, y, w, h = view.crop
    pixels = picture[y : y + h, x : x + w]
    pixels = pixels[:, ::-1] if view.flip else pixels
    if max(w, h) > LONGEST:
        factor = LONGEST / max(w, h)
        size = (max(1, round(w * factor)), max(1, round(h * factor)))
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    return np.ascontiguousarray(pixels)


def collate_frames(items: list[dict[str, Any]]) -> FrameBatch:
    """Make a batch of items of `ArchiveFrames`."""
    items = [dict(item) for item in items]
    names = tuple(item.pop("name") for item in items)
    problems = tuple(line for item in items for line in item.pop("problems"))
    columns = {key: torch.stack([item[key] for item in items]) for key in items[0]}
    features = None
    if "dense" in columns:
        features = TeacherFeatures(
            columns.pop("dense"), columns.pop("pooled"), columns.pop("dense_valid")
        )
    return FrameBatch(**columns, names=names, features=features, problems=problems)
