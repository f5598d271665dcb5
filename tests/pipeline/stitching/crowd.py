"""A tracked video without a video: people who walk, as tables, looks, and windows cut from it."""

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from model.track.tracks import TrackState
from pipeline.stitching.looks import Glance, Looks
from pipeline.stitching.stitch import Window

DIM = 8
FPS = 10


@dataclass(frozen=True)
class Walker:
    """A person in the frames first..last, from a place with a velocity in pixels a frame."""

    track_id: int
    first: int
    last: int
    place: tuple[float, float] = (0.0, 0.0)
    velocity: tuple[float, float] = (1.0, 0.0)

    def rows(self, first=0, last=math.inf):
        """Rows of the frames first..last: frame, id, x, y."""
        for frame in range(max(first, self.first), min(last, self.last) + 1):
            x, y = (p + v * frame for p, v in zip(self.place, self.velocity, strict=True))
            yield frame, self.track_id, x, y


def columns(rows, offset=0):
    """Columns of the table of tracks of rows sorted by frame and id."""
    frame, track_id, x, y = np.array(sorted(rows), float).reshape(-1, 4).T
    count = len(frame)
    return {
        "frame_index": frame.astype(np.int64) - offset,
        "time_s": frame / FPS,
        "track_id": track_id.astype(np.int64),
        "x": x.astype(np.float32),
        "y": y.astype(np.float32),
        "w": np.full(count, 20, np.float32),
        "h": np.full(count, 50, np.float32),
        "score": np.full(count, 0.9, np.float32),
    }


def glance_at(ids, views, misses=None, picture=None, boxes=None):
    """A glance in which the tracks have these memories, and stand where the boxes say.

    Args:
        ids: Of the tracks.
        views: A memory of each.
        misses: Frames unseen of each; None sees all.
        picture: None is grey, so that all have the same colours.
        boxes: (N, 4) centre form in [0, 1]; None stands all in the middle.
    """
    state = TrackState.empty(1, len(ids) + 1, DIM, 1)
    state.long[0, : len(ids)] = torch.as_tensor(np.asarray(views, np.float32))
    state.track_id[0, : len(ids)] = torch.as_tensor(np.asarray(ids, np.int64))
    state.active[0, : len(ids)] = True
    state.boxes[0, :, 2:] = 0.25
    if misses is not None:
        state.misses[0, : len(ids)] = torch.as_tensor(misses)
    if boxes is not None:
        state.boxes[0, : len(ids)] = torch.as_tensor(np.asarray(boxes, np.float32))
    if picture is None:
        picture = np.full((64, 96, 3), 128, np.uint8)
    return Glance(state, picture, picture.shape[:2])


def in_clothes(people, seed=0):
    """A picture of people side by side in clothes of their own, and their boxes, see `glance_at`.

    Args:
        people: Whom to show, from the left.
        seed: Of the light, which is a little different each time.
    """
    width = 20 * max(1, len(people))
    picture = np.full((64, width, 3), 128, np.uint8)
    for n, person in enumerate(people):
        worn = np.random.default_rng([11, person]).integers(20, 236, (2, 3))
        light = np.random.default_rng([person, seed]).integers(-9, 10, (2, 3))
        picture[:32, 20 * n : 20 * n + 20], picture[32:, 20 * n : 20 * n + 20] = worn + light
    boxes = [((20 * n + 10) / width, 0.5, 20 / width, 1.0) for n in range(len(people))]
    return {"picture": picture, "boxes": boxes}


def memory(person, seed=0):
    """A memory of a person, a little different each time."""
    own = np.random.default_rng([7, person]).standard_normal(DIM)
    return own + 0.1 * np.random.default_rng([person, seed]).standard_normal(DIM)


def first_frame(start, overlap):
    """The first frame of a window whose seam lies at a frame, by its time in floats."""
    return next(f for f in range(start + 1) if f / FPS >= start / FPS - overlap / FPS)


def cut(walkers, frames, windows, overlap, rename=None, people=None):
    """A tracked video cut into windows that share `overlap` frames, as a perfect tracker sees it.

    Args:
        walkers: The people.
        frames: Of the video.
        windows: Their number; the seams lie at equal distances.
        overlap: Frames that two windows share.
        rename: For each window the id in the window of each id.
        people: Whom a walker's memory shows, by id; None gives no views.
    """
    bounds = [round(frames * i / windows) for i in range(windows + 1)]
    parts = []
    for number in range(windows):
        start, end = bounds[number], bounds[number + 1]
        first = first_frame(start, overlap) if number else 0
        names = (rename or {}).get(number, {})
        rows = [
            (frame, names.get(i, i), x, y)
            for walker in walkers
            for frame, i, x, y in walker.rows(first, end - 1)
        ]
        tracks = columns(rows, first)
        looks = Looks(DIM)
        looks.add(tracks, None)
        if people is not None:
            back = {v: k for k, v in names.items()}
            for seed in range(3):
                ids = sorted(set(tracks["track_id"].tolist()))
                views = [memory(people[back.get(i, i)], 3 * number + seed) for i in ids]
                who = [people[back.get(i, i)] for i in ids]
                shown = in_clothes(who, 3 * number + seed)
                looks.add(columns([]), glance_at(ids, np.reshape(views, (-1, DIM)), **shown))
        index = np.arange(end - first)
        parts.append(
            Window.of(
                pa.table(tracks),
                pa.table({"frame_index": index, "time_s": (index + first) / FPS}),
                looks,
                start / FPS if number else -math.inf,
                end / FPS if number + 1 < windows else math.inf,
                overlap / FPS,
            )
        )
    return parts


def finished(walkers, frames, windows, stitched, rename=None):
    """Rows (frame, original id, finished id) of the stitched video."""
    bounds = [round(frames * i / windows) for i in range(windows + 1)]
    rows = []
    for number in range(windows):
        names = (rename or {}).get(number, {})
        for walker in walkers:
            for frame, i, _, _ in walker.rows(bounds[number], bounds[number + 1] - 1):
                rows.append((frame, i, stitched.ids[number][names.get(i, i)]))
    return rows
