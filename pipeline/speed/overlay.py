"""How fast overlays of full-HD video are drawn: seconds of video in a second of the clock."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import av
import numpy as np

from pipeline.report.overlays.artist import Look
from pipeline.report.overlays.hidden import Blur
from pipeline.report.overlays.render import render
from pipeline.report.overlays.rows import OverlayRows
from pipeline.speed.readings import Measure, Ratio, Reading, Spread, in_turns
from pipeline.storage.files import list_videos
from pipeline.video.decode import iterate_frames
from pipeline.video.info import VideoInfo
from pipeline.video.probe import probe

_WIDTH, _HEIGHT, _RATE = 1920, 1080, 25
_FRAMES = 250
_PICTURES = 50  # pictures of the source, shown forwards and backwards
_PEOPLE = 10


def overlay_measure(source: VideoInfo, repeats: int) -> Measure:
    """Draw a full-HD video with and without hiding its people, on all cores of this process.

    The video is made of `source`, enlarged. Ten people walk through it in made rows.

    Raises:
        DecodeError, StorageError: The source cannot be read.
    """
    with tempfile.TemporaryDirectory() as scratch:
        info = _full_hd(source, Path(scratch) / "hd.mp4")
        rows = _rows()
        sides: dict[str, Callable[[], Reading]] = {
            f"blur={blur}": partial(_reading, info, rows, blur, Path(scratch))
            for blur in ("none", "people")
        }
        readings = in_turns(sides, repeats)
        seconds = _FRAMES / _RATE
        ratios = [
            Ratio(
                f"{name}: seconds of video / seconds of the clock", "wall",
                Spread.of(seconds / reading.wall_s for reading in readings[name]), 1.0,
            )
            for name in sides
        ]  # fmt: skip
        ratios += [
            Ratio(
                f"{name}: seconds of video / seconds of a core", "core",
                Spread.of(seconds / reading.core_s for reading in readings[name]),
            )
            for name in sides
        ]  # fmt: skip
    return Measure(
        "overlays",
        f"{source.relative_path} enlarged to {_WIDTH}x{_HEIGHT}, {_FRAMES} frames, "
        f"{_PEOPLE} people in each",
        readings,
        ratios,
        {"cores": len(os.sched_getaffinity(0))},
    )


def _reading(info: VideoInfo, rows: OverlayRows, blur: Blur, scratch: Path) -> Reading:
    look = Look(frozenset(range(1, _PEOPLE + 1)), blur)
    wall, core = time.perf_counter(), time.process_time()
    done = render(info, rows, range(_FRAMES), look, scratch / "drawn.mp4", scratch / "drawn.png")
    return Reading(done.frames, time.perf_counter() - wall, time.process_time() - core)


def _rows() -> OverlayRows:
    """People side by side who walk right and come in again at the left."""
    frame = np.tile(np.arange(_FRAMES), _PEOPLE)
    number = np.repeat(np.arange(1, _PEOPLE + 1), _FRAMES)
    x = (number * _WIDTH // _PEOPLE + 4 * frame) % (_WIDTH - 140)
    sides = np.ones_like(x)
    boxes = np.stack([x, 400 * sides, 140 * sides, 360 * sides], axis=1).astype(np.float32)
    whole = np.arange(_FRAMES)
    quality = np.full(_FRAMES, 0.8, np.float32)
    score = np.full(len(frame), 0.9, np.float32)
    return OverlayRows(
        whole, whole / _RATE, quality, np.ones(_FRAMES, bool), np.zeros(_FRAMES, bool), frame,
        number, boxes, score,
    )  # fmt: skip


def _full_hd(source: VideoInfo, path: Path) -> VideoInfo:
    pictures = [picture for _, _, picture in islice(iterate_frames(source), _PICTURES)]
    loop = [*pictures, *pictures[::-1]]
    with av.open(str(path), "w") as container:
        options = {"crf": "20", "preset": "veryfast"}
        stream = container.add_stream("libx264", rate=_RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        for number in range(_FRAMES):
            frame = av.VideoFrame.from_ndarray(loop[number % len(loop)], format="rgb24")
            large = frame.reformat(_WIDTH, _HEIGHT, "yuv420p", interpolation="BICUBIC")
            large.pts = number
            container.mux(stream.encode(large))
        container.mux(stream.encode(None))
    return probe(next(list_videos(str(path))))
