"""Recordings with ground truth, made of short sequences: long ones, and some that go black.

In a long recording each sequence is shown forwards and backwards in turn, so that nobody jumps,
until its share of the time is over. Every other stretch is degraded, each time by another kind.

In a recording for re-finding a sequence is shown once, as it is, and goes black for a while. It is
not repeated, because people who come back in the same pictures would be found too easily.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from pipeline.datasets.boxes import Boxes, evaluated
from pipeline.datasets.mot import MotError
from pipeline.datasets.mot import Sequence as MotSequence
from pipeline.degrade.kinds import PORTABLE_KINDS, degrade, sequence_seed
from pipeline.storage.files import list_videos
from pipeline.video.decode import iterate_frames
from pipeline.video.probe import probe

FPS = 10
_WIDTH, _HEIGHT = 640, 480
_STRETCH = 20 * FPS  # frames between two changes of the degradation
_SEVERITY = 3
_BLACKOUTS = (3 * FPS, 12 * FPS)  # lengths in frames
_PLACES = 3  # of the blackouts of one length in a sequence
_AROUND = 3 * FPS  # least number of frames before and after a blackout
_PEOPLE = 1_000_000  # ids of a sequence; those of the next begin behind them
_FIRST = 0.3  # of the share of the first sequence is shown first, the rest at the end
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording and its ground truth.

    Attributes:
        path: The video, of `FPS` frames a second.
        frames: Their number.
        gt: Evaluated boxes, frames from 1. A person keeps the id in all frames of a sequence.
    """

    path: Path
    frames: int
    gt: Boxes


def there_and_back(length: int, count: int) -> np.ndarray[Any, Any]:
    """Which of `length` pictures each of `count` frames shows: forwards, backwards, and so on."""
    if length == 1:
        return np.zeros(count, np.int64)
    place = np.arange(count) % (2 * length - 2)
    return np.minimum(place, 2 * length - 2 - place)


def write_recording(sequences: Sequence[MotSequence], minutes: float, path: Path) -> Recording:
    """Write a long recording of some sequences, each for an equal share of the time.

    Args:
        sequences: At least one.
        minutes: Length of the recording.
        path: Of the video.

    Raises:
        MotError: A sequence has no video file, or no frame that can be read.
        DecodeError, StorageError: A video cannot be read.
    """
    count = max(1, round(minutes * 60 * FPS / len(sequences)))

    def shots() -> Iterator[_Shot]:
        frame = 0
        for number, place, stop in _shares(len(sequences), count):
            pictures = _pictures(sequences[number])
            for shown in there_and_back(len(pictures), stop)[place:].tolist():
                pixels, people = pictures[shown]
                ids = people.track_id + _PEOPLE * number
                yield _degraded(pixels, frame), Boxes.of(people.frame, ids, people.xywh)
                frame += 1

    return _written(shots(), path)


def write_blackouts(
    sequence: MotSequence, path: Path, degraded: bool = False
) -> Iterator[Recording]:
    """Write recordings of one sequence that differ in when and how long they are black.

    Args:
        sequence: Blackouts that are too long for it are left out.
        path: Of the video, which is replaced by the next one.
        degraded: Whether each is degraded, by another kind than the one before.

    Raises:
        MotError, DecodeError, StorageError: As of `write_recording`.
    """
    pictures = _pictures(sequence)
    black = np.zeros_like(pictures[0][0]), Boxes.of([], [], [])
    kinds = cycle(PORTABLE_KINDS)
    for length in _BLACKOUTS:
        last = len(pictures) - _AROUND - length
        if last < _AROUND:
            continue
        for start in np.unique(np.linspace(_AROUND, last, _PLACES + 2)[1:-1].astype(int)).tolist():
            shown = pictures
            if degraded:
                kind = next(kinds)
                seed = sequence_seed(sequence.name, kind, _SEVERITY)
                shown = [
                    (degrade(pixels[None], kind, _SEVERITY, seed, frame)[0], people)
                    for frame, (pixels, people) in enumerate(pictures)
                ]
            shots = [*shown[:start], *[black] * length, *shown[start + length :]]
            yield _written(iter(shots), path)


_Shot = tuple[Pixels, Boxes]
"""A picture of a recording, and the people in it."""


def _written(shots: Iterator[_Shot], path: Path) -> Recording:
    """Write pictures as H.264."""
    parts = []
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(
            "libx264", rate=FPS, options={"preset": "veryfast", "crf": "20", "g": str(2 * FPS)}
        )
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        stream.codec_context.thread_count = 1
        frames = 0
        for pixels, people in shots:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            frames += 1
            parts.append((np.full(len(people), frames), people.track_id, people.xywh))
        container.mux(stream.encode())
    frame, track_id, xywh = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Recording(path, frames, Boxes.of(frame, track_id, xywh))


def _shares(sequences: int, count: int) -> Iterator[tuple[int, int, int]]:
    """(sequence, first frame of it, frame behind its last one) for each part of a recording.

    The first sequence begins the recording and ends it. So no cut falls on a seam of windows of
    equal length.
    """
    first = round(_FIRST * count)
    yield 0, 0, first
    for number in range(1, sequences):
        yield number, 0, count
    yield 0, first, count


def _pictures(sequence: MotSequence) -> list[_Shot]:
    """Pictures of a sequence at about `FPS` frames a second, in the recording's size."""
    if not sequence.video.is_file():
        raise MotError(f"{sequence.video} is not a video file")
    info = probe(next(list_videos(str(sequence.video))))
    step = max(1, round(sequence.frame_rate / FPS))
    scale = min(_WIDTH / info.width, _HEIGHT / info.height)
    pictures = []
    for number, (_, _, pixels) in enumerate(iterate_frames(info)):
        if number % step == 0 and number < sequence.length:
            people = evaluated(sequence.gt.at(number + 1))
            pictures.append(
                (
                    _fitted(pixels, scale),
                    Boxes.of(people.frame, people.track_id, people.xywh * scale),
                )
            )
    if not pictures:
        raise MotError(f"{sequence.video} has no frame that can be read")
    return pictures


def _fitted(pixels: Pixels, scale: float) -> Pixels:
    """A picture at the top left of one of the recording's size."""
    height, width = (
        min(most, round(side * scale))
        for most, side in zip((_HEIGHT, _WIDTH), pixels.shape[:2], strict=True)
    )
    whole = np.zeros((_HEIGHT, _WIDTH, 3), np.uint8)
    whole[:height, :width] = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return whole


def _degraded(pixels: Pixels, frame: int) -> Pixels:
    stretch = frame // _STRETCH
    if stretch % 2 == 0:
        return pixels
    kind = PORTABLE_KINDS[stretch // 2 % len(PORTABLE_KINDS)]
    seed = sequence_seed(str(stretch), kind, _SEVERITY)
    return degrade(pixels[None], kind, _SEVERITY, seed, frame)[0]
