"""Labelled pictures of the paired measure: stills and frames of sequences, clean or degraded.

A still is degraded as a clip of one frame, seeded by the name of its file. A frame of a sequence is
degraded as in the benchmark, so a codec re-encodes the whole sequence.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.benchmark.detection_measure import frame_people
from pipeline.datasets.mot import MotError
from pipeline.datasets.mot import Sequence as MotSequence
from pipeline.datasets.picture_boxes import People
from pipeline.datasets.still_images import Still, StillsError
from pipeline.degrade.conditions import CLEAN, Condition
from pipeline.degrade.kinds import degrade
from pipeline.storage.files import StorageError
from pipeline.trackers.sequence_frames import SequenceFrames
from pipeline.video.errors import DecodeError
from pipeline.video.probe import ProbeError

Pixels = np.ndarray[Any, Any]

STILLS, SEQUENCES, POOR, APART = "stills", "sequences", "poor", "apart"
"""Groups of pictures. Those of the last two are poor already, and shown clean alone."""
_DEGRADED = (STILLS, SEQUENCES)
_UNREADABLE = (OSError, SyntaxError, ValueError, UnidentifiedImageError)


@dataclass(frozen=True, slots=True)
class Picture:
    """One labelled picture.

    Attributes:
        group: `STILLS`, `SEQUENCES`, `POOR` or `APART`.
        source: data set of a still, name of a sequence.
        camera: of a still, "" if it is not known.
        name: name of a still's file, of a frame's sequence.
        index: of a frame in its sequence; 0 of a still.
        people: ground truth.
        origin: path of a still, the sequence of a frame.
        height, width: in pixels.
        sha256: of pixels and ground truth.
    """

    group: str
    source: str
    camera: str
    name: str
    index: int
    people: People
    origin: Path | MotSequence
    height: int
    width: int
    sha256: str

    @property
    def whole(self) -> bool:
        """Whether boxes of its ground truth are of whole people, hidden parts included."""
        return isinstance(self.origin, MotSequence)


def shown_under(condition: Condition, pictures: Sequence[Picture]) -> list[Picture]:
    """Pictures shown under a condition: all of them clean, else those that are not poor already."""
    if condition.kind == CLEAN:
        return list(pictures)
    return [picture for picture in pictures if picture.group in _DEGRADED]


def survey_stills(
    group: str, stills: Iterable[Still], left_out: dict[str, str]
) -> Iterator[Picture]:
    """Open stills one after the other; `left_out` gets the reason for each unreadable one."""
    for still in stills:
        try:
            pixels = _open(still.path)
        except _UNREADABLE as error:
            left_out[str(still.path)] = f"not a readable picture ({error})"
            continue
        people = People(still.xywh, still.ignored)
        yield _picture(
            group, still.source, still.camera, still.path.name, 0, people, still.path, pixels
        )


def survey_sequence(
    group: str, sequence: MotSequence, stride: int, left_out: dict[str, str]
) -> list[Picture]:
    """Every `stride`-th frame of a sequence; of a damaged one none, and `left_out` says why."""
    name = sequence.name
    try:
        shots = SequenceFrames(sequence, Condition(), None, canvases=(), native=True, cache="")
        found = []
        for shot in shots:
            if shot.index % stride == 0:
                assert shot.native is not None
                people = frame_people(sequence, shot.index)
                found.append(
                    _picture(group, name, "", name, shot.index, people, sequence, shot.native)
                )
    except (MotError, ProbeError, DecodeError, StorageError) as error:
        left_out[name] = str(error)
        return []
    if shots.problem:
        left_out[name] = shots.problem
        return []
    return found


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture under a condition.

    Attributes:
        place: index of the picture among those that are shown.
        picture: what is known of it.
        pixels: (H, W, 3) uint8 RGB of its own size.
        clean: the same without degradation, or an earlier frame of its sequence without it.
    """

    place: int
    picture: Picture
    pixels: Pixels
    clean: Pixels


def show(
    pictures: Sequence[Picture], condition: Condition, cache: str, clean_age: int = 0
) -> Generator[Shown]:
    """Open pictures under a condition, in their order.

    Args:
        pictures: frames of one sequence in their order, without others between them.
        condition: of the pictures.
        cache: folder or URL for re-encoded sequences.
        clean_age: how many frames before a frame the clean one beside it is; the first frames of a
            sequence get its very first. A still has itself beside it.

    Raises:
        StillsError, MotError, StorageError: a picture cannot be read any more.
    """
    for _, group in groupby(enumerate(pictures), key=lambda item: (item[1].source, item[1].name)):
        members = list(group)
        origin = members[0][1].origin
        if isinstance(origin, MotSequence):
            yield from _frames(origin, members, condition, cache, clean_age)
            continue
        for place, picture in members:
            assert isinstance(picture.origin, Path)
            try:
                pixels = _open(picture.origin)
            except _UNREADABLE as error:
                raise StillsError(f"{picture.origin}: cannot be read any more ({error})") from error
            degraded = _degraded(pixels, condition, picture.name, 0)
            yield Shown(place, picture, degraded, pixels)


def _frames(
    sequence: MotSequence,
    members: list[tuple[int, Picture]],
    condition: Condition,
    cache: str,
    clean_age: int,
) -> Iterator[Shown]:
    wanted = {picture.index: (place, picture) for place, picture in members}
    recent: deque[Pixels] = deque(maxlen=clean_age + 1)

    def frames(of: Condition) -> Iterator[tuple[int, Pixels]]:
        for shot in SequenceFrames(sequence, of, None, canvases=(), native=True, cache=cache):
            assert shot.native is not None
            yield shot.index, shot.native

    # Only a codec works on a whole sequence at once.
    recoded = frames(condition) if condition.kind == "codec" else None
    try:
        for index, clean in frames(Condition()):
            pixels = None if recoded is None else next(recoded)[1]
            recent.append(clean)
            if index not in wanted:
                continue
            place, picture = wanted.pop(index)
            if pixels is None:
                pixels = _degraded(clean, condition, sequence.name, index)
            yield Shown(place, picture, pixels, recent[0])
    except (ProbeError, DecodeError) as error:
        raise MotError(f"{sequence.video}: cannot be read any more ({error})") from error
    if wanted:
        raise MotError(f"{sequence.video}: its frame {min(wanted)} cannot be read any more")


def _degraded(pixels: Pixels, condition: Condition, name: str, index: int) -> Pixels:
    if condition.kind == CLEAN:
        return pixels
    kind, severity = condition.kind, condition.severity
    return degrade(pixels[None], kind, severity, condition.seed_for(name), index)[0]


def _open(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _picture(
    group: str,
    source: str,
    camera: str,
    name: str,
    index: int,
    people: People,
    origin: Path | MotSequence,
    pixels: Pixels,
) -> Picture:
    digest = hashlib.sha256(pixels.tobytes())
    for array in (people.xywh, people.ignored):
        digest.update(array.tobytes())
    height, width = pixels.shape[:2]
    return Picture(
        group, source, camera, name, index, people, origin, height, width, digest.hexdigest()
    )


def batches(
    shown: Iterable[Shown], canvas: Callable[[Picture], Hashable], size: int
) -> Iterator[list[Shown]]:
    """Join pictures of the same canvas to batches of at most `size`."""
    waiting: dict[Hashable, list[Shown]] = {}
    for shot in shown:
        key = canvas(shot.picture)
        batch = waiting.setdefault(key, [])
        batch.append(shot)
        if len(batch) == size:
            yield waiting.pop(key)
    yield from waiting.values()
