"""Tracks that people have corrected in a labelling tool, and the boxes that they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


class LabelsError(ValueError):
    """A file of corrected tracks that cannot be used; the message names file, track and remedy."""


@dataclass(frozen=True, slots=True)
class Key:
    """A box that a labelling tool has saved for one frame.

    Attributes:
        frame: number of the decoded frame, from 0.
        corners: left, top, right, bottom.
        shown: whether the person is seen in this frame.
        goes_on: whether the person is seen in the frames up to the next key; their boxes are
            interpolated. After the last key the box stays as it is.
    """

    frame: int
    corners: tuple[float, float, float, float]
    shown: bool
    goes_on: bool


@dataclass(frozen=True, slots=True)
class CorrectedTrack:
    """One track of a file.

    Attributes:
        name: how the file calls it, for messages.
        track_id: number of the person; two tracks of one number are one person.
        label: name of its class.
        keys: in the order of frames, no two of one frame.
    """

    name: str
    track_id: int
    label: str
    keys: Sequence[Key]


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectedVideo:
    """The corrected tracks of one video.

    Attributes:
        file: path or URL of the file they are from.
        video: path or name of the video, as the file gives it; empty if it does not say.
        tracks: all of its tracks.
        frames: frames of the video, None if the file does not say.
        exact: whether the tool has counted them, up to `last`; if not, it has estimated them.
        first, last: first and last labelled frame; last is None for the end of the video.
        size: width and height of the picture in pixels, None if the file does not say.
        percent: whether corners are percent of the sides of the picture, and not pixels.
        repairs: what was put right, a line each.
    """

    file: str
    video: str
    tracks: Sequence[CorrectedTrack]
    frames: int | None
    exact: bool
    first: int = 0
    last: int | None = None
    size: tuple[int, int] | None = None
    percent: bool = False
    repairs: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class CorrectedBoxes:
    """All boxes of a video, sorted by frame and id.

    Attributes:
        frame: (N,) int64, from 0.
        track_id: (N,) int64.
        xywh: (N, 4) float64 pixels of the displayed frame, inside of it.
        ignore: (N,) bool, whether a box counts neither as a person nor as background.
    """

    frame: np.ndarray
    track_id: np.ndarray
    xywh: np.ndarray
    ignore: np.ndarray

    def at(self, frame: int) -> slice:
        """The rows of one frame."""
        first, last = np.searchsorted(self.frame, (frame, frame + 1))
        return slice(int(first), int(last))


@dataclass(frozen=True, slots=True)
class LabelNames:
    """What the labels of a file mean.

    Attributes:
        people: labels of people.
        ignored: labels of what counts neither as a person nor as background.
    """

    people: tuple[str, ...] = ("person",)
    ignored: tuple[str, ...] = ()


def resolve(
    labels: CorrectedVideo, frames: int, size: tuple[int, int], names: LabelNames
) -> CorrectedBoxes:
    """The boxes in each frame. What is put right is added to `labels.repairs`.

    Args:
        labels: the tracks of a video.
        frames: number of frames of the video.
        size: width and height of the displayed frame in pixels.
        names: what labels mean.

    Raises:
        LabelsError: the file does not fit the video, a label is unknown, a box lies outside of the
            picture, or a person has two boxes in one frame.
    """
    _check_video(labels, frames, size)
    last = min(frames - 1, frames - 1 if labels.last is None else labels.last)
    parts: list[tuple[np.ndarray, ...]] = []
    cut = beyond = 0
    for track in labels.tracks:
        ignored = _is_ignored(labels.file, track, names)
        number, corners, late = _spread(track, last)
        beyond += late
        if labels.percent:
            corners = corners * np.array([*size, *size]) / 100
        inside = _cut(labels.file, track, number, corners, size)
        cut += int((np.abs(inside - corners) > 0.5).any(axis=1).sum())
        shape = len(number)
        parts.append((number, np.full(shape, track.track_id), inside, np.full(shape, ignored)))
    if beyond:
        labels.repairs.append(f"{beyond} boxes after the last frame were left out")
    if cut:
        labels.repairs.append(
            f"{cut} boxes reached outside of the picture and were cut at its edge"
        )
    if not parts:
        none = np.zeros(0, np.int64)
        return CorrectedBoxes(none, none, np.zeros((0, 4)), np.zeros(0, bool))
    frame, ids, box, ignore = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((ids, frame))
    frame, ids = frame[order], ids[order]
    twice = np.flatnonzero((np.diff(frame) == 0) & (np.diff(ids) == 0))
    if len(twice):
        raise LabelsError(
            f"{labels.file}: track {ids[twice[0]]} has two boxes in frame {frame[twice[0]]}; "
            "delete one of them, or give one another track id"
        )
    box[:, 2:] -= box[:, :2]
    return CorrectedBoxes(frame, ids, box[order], ignore[order])


def _check_video(labels: CorrectedVideo, frames: int, size: tuple[int, int]) -> None:
    """Refuse labels that were made on another video."""
    remedy = "name the video that the labels were made on"
    if labels.size is not None and labels.size != size:
        raise LabelsError(
            f"{labels.file}: was made on pictures of {labels.size[0]}x{labels.size[1]} pixels, "
            f"its video shows {size[0]}x{size[1]}; {remedy}"
        )
    if labels.frames is None or labels.frames == frames:
        return
    if labels.exact and labels.frames < frames:
        labels.repairs.append(
            f"ends at frame {labels.frames - 1} of a video of {frames} frames; the frames after "
            "it are not packed"
        )
        return
    # A tool that estimates is wrong by the rounding of length and rate.
    if labels.exact or abs(labels.frames - frames) > max(2, 0.01 * frames):
        raise LabelsError(
            f"{labels.file}: is for a video of {labels.frames} frames, its video has "
            f"{frames}, so boxes would go to wrong pictures; {remedy}"
        )
    labels.repairs.append(
        f"says that the video has {labels.frames} frames; it has {frames}, which is taken"
    )


def _is_ignored(file: str, track: CorrectedTrack, names: LabelNames) -> bool:
    if track.label in names.people:
        return False
    if track.label in names.ignored:
        return True
    raise LabelsError(
        f"{file}: {track.name} has the label {track.label!r}; people are "
        f"{', '.join(names.people)}. Add it to person_labels=, or to ignored_labels= if it is not "
        "to be learnt, neither as a person nor as background"
    )


def _spread(track: CorrectedTrack, last: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Frames (N,), corners (N, 4), and the number of shown keys after the last frame."""
    keys = [key for key in track.keys if key.frame <= last]
    late = sum(key.shown for key in track.keys[len(keys) :])
    frames: list[np.ndarray] = []
    boxes: list[np.ndarray] = []
    for place, key in enumerate(keys):
        here = np.array([key.corners])
        if key.shown:
            frames.append(np.array([key.frame]))
            boxes.append(here)
        if not key.goes_on:
            continue
        following = track.keys[place + 1] if place + 1 < len(track.keys) else None
        end = last + 1 if following is None else min(following.frame, last + 1)
        between = np.arange(key.frame + 1, end)
        if following is None:
            boxes.append(np.repeat(here, len(between), axis=0))
        else:
            share = (between - key.frame) / (following.frame - key.frame)
            boxes.append(here + share[:, None] * (np.array(following.corners) - here))
        frames.append(between)
    if not frames:
        return np.zeros(0, np.int64), np.zeros((0, 4)), late
    return np.concatenate(frames), np.concatenate(boxes), late


def _cut(
    file: str, track: CorrectedTrack, frame: np.ndarray, corners: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Boxes cut at the edges of the picture."""
    inside = np.clip(corners, 0, np.array([*size, *size]))
    empty = np.flatnonzero((inside[:, 2:] <= inside[:, :2]).any(axis=1))
    if len(empty):
        left, top, right, bottom = corners[empty[0]].round(1).tolist()
        raise LabelsError(
            f"{file}: {track.name} has in frame {frame[empty[0]]} the box {left:g}, {top:g} to "
            f"{right:g}, {bottom:g}, outside of the picture of {size[0]}x{size[1]} pixels; delete "
            "it, or mark it as outside"
        )
    return inside
