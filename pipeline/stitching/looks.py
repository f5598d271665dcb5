"""What joining needs of each track: how it looks, and where and when it begins and ends."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa

from model.track.tracks import TrackState
from pipeline.stitching.colours import COLOURS, Array, colours

_ROOM = 64  # tracks for which memory is taken at first; it doubles when there are more
_SQUARES = b"squares"
_VELOCITY_S = 0.5  # of video, over which a velocity is smoothed


def look_fields(dim: int) -> np.dtype[Any]:
    """What is kept of a track, as a NumPy record.

    Fields: track_id; first_s, last_s, time of the first and last box; first_box, last_box, (4,) x,
    y, w, h in pixels; first_velocity, last_velocity, (2,) of the centre in pixels a second; boxes,
    their number; score_sum, of their scores; views, how often the track was looked at; view_sum,
    (dim + COLOURS,) of these views, each the student's memory and then the colours.

    Args:
        dim: Width of the student's queries.
    """
    return np.dtype(
        [
            ("track_id", np.int64),
            ("first_s", np.float64),
            ("last_s", np.float64),
            ("first_box", np.float32, (4,)),
            ("last_box", np.float32, (4,)),
            ("first_velocity", np.float32, (2,)),
            ("last_velocity", np.float32, (2,)),
            ("boxes", np.int64),
            ("score_sum", np.float64),
            ("views", np.int64),
            ("view_sum", np.float32, (dim + COLOURS,)),
        ]
    )


@dataclass(frozen=True, slots=True)
class Glance:
    """What the student saw in the last frame that it encoded.

    Attributes:
        state: Of the one stream after it.
        picture: (H, W, 3) uint8 RGB, what it encoded.
        canvas: Height and width in pixels of which the boxes of the state are shares. The picture
            lies at the top left of it.
    """

    state: TrackState
    picture: Array
    canvas: tuple[int, int]


class Looks:
    """Looks of all tracks of a video or window, gathered while it is tracked.

    A view of a track is the student's long memory of it (`TrackState.long`) and its colours after a
    window of frames, if it was seen in the last of them. That of one track changes with its place
    and size, so the spread of views within tracks is gathered too, and is taken out where looks are
    compared.

    A track takes 96 + 4 * width bytes, which is 680 for nano, and about 100 for its place; a video
    8 * width * width bytes, which is 170,528 for nano, where width is dim + COLOURS.

    Attributes:
        squares: (width, width) sum of the outer products of all views with themselves.
    """

    def __init__(self, dim: int) -> None:
        """Start without tracks.

        Args:
            dim: Width of the student's queries, `ModelConfig.dim`.
        """
        self.squares = np.zeros((dim + COLOURS, dim + COLOURS))
        self._records = np.zeros(_ROOM, look_fields(dim))
        self._place: dict[int, int] = {}

    def __len__(self) -> int:
        """Number of tracks."""
        return len(self._place)

    @property
    def dim(self) -> int:
        """Width of the student's queries."""
        return len(self.squares) - COLOURS

    def records(self) -> Array:
        """A copy of all records, sorted by id; see `look_fields`."""
        records = self._records[: len(self)]
        return records[np.argsort(records["track_id"])]

    def spread(self) -> Array:
        """(width, width) scatter of the views around the means of their tracks.

        It tells in which directions the view of one person changes, and how much.
        """
        return self.squares - _outer(self._records[: len(self)])

    def add(self, tracks: Mapping[str, Array], glance: Glance | None) -> None:
        """Add the rows of the next frames, and views of whom the student saw in the last one.

        Args:
            tracks: Columns of the table of tracks, in the order of the frames.
            glance: At the last of the frames that was encoded; None if none was.
        """
        if len(tracks["track_id"]):
            self._add_rows(tracks)
        if glance is not None:
            self._add_views(*self.views(glance))

    def _add_rows(self, tracks: Mapping[str, Array]) -> None:
        order = np.argsort(tracks["track_id"], kind="stable")
        ids, start, count = np.unique(
            tracks["track_id"][order], return_index=True, return_counts=True
        )
        first, last = order[start], order[start + count - 1]
        boxes = np.stack([tracks[side] for side in "xywh"], axis=1)
        time_s = tracks["time_s"]
        place = self._places(ids)
        r = self._records
        new = r["boxes"][place] == 0
        r["first_s"][place[new]] = time_s[first[new]]
        r["first_box"][place[new]] = boxes[first[new]]
        before_s = np.where(new, time_s[first], r["last_s"][place])
        before = np.where(new[:, None], boxes[first], r["last_box"][place])
        r["last_s"][place] = time_s[last]
        r["last_box"][place] = boxes[last]
        r["boxes"][place] += count
        r["score_sum"][place] += np.add.reduceat(tracks["score"][order].astype(np.float64), start)

        moved = time_s[last] > before_s
        place, before, before_s = place[moved], before[moved], before_s[moved]
        step_s = r["last_s"][place] - before_s
        velocity = (centres(r["last_box"][place]) - centres(before)) / step_s[:, None]
        known = (before_s > r["first_s"][place])[:, None]
        kept = np.exp(-step_s / _VELOCITY_S)[:, None] * known
        r["last_velocity"][place] = kept * r["last_velocity"][place] + (1 - kept) * velocity
        early = before_s - r["first_s"][place] < _VELOCITY_S
        place = place[early]
        way = centres(r["last_box"][place]) - centres(r["first_box"][place])
        r["first_velocity"][place] = way / (r["last_s"] - r["first_s"])[place, None]

    def views(self, glance: Glance) -> tuple[Array, Array]:
        """Ids (N,) of the tracks that are seen, and views (N, width) of them."""
        state = glance.state
        ids = state.track_id[0].tolist()
        seen = (state.active[0] & (state.misses[0] == 0)).tolist()
        # A track whose boxes all lie outside the picture has no row, and needs no look.
        slots = [slot for slot, i in enumerate(ids) if seen[slot] and i in self._place]
        memory = state.long[0].float().cpu().numpy()[slots]
        boxes = state.boxes[0].float().cpu().numpy()[slots] * np.tile(glance.canvas[::-1], 2)
        views = np.concatenate([memory, colours(glance.picture, boxes)], axis=1)
        return np.array([ids[slot] for slot in slots], np.int64), views

    def _add_views(self, ids: Array, views: Array) -> None:
        place = [self._place[i] for i in ids.tolist()]
        self._records["view_sum"][place] += views
        self._records["views"][place] += 1
        views = views.astype(np.float64)
        self.squares += views.T @ views

    def _places(self, ids: Array) -> Array:
        """Rows of the records of some ids, new ones included."""
        place = np.array([self._place.setdefault(i, len(self._place)) for i in ids.tolist()], int)
        if len(self) > len(self._records):
            more = max(len(self), 2 * len(self._records))
            self._records = np.concatenate(
                [self._records, np.zeros(more - len(self._records), self._records.dtype)]
            )
        self._records["track_id"][place] = ids
        return place

    def to_arrow(self) -> pa.Table:
        """All records as a table of one row for each track, sorted by id.

        `squares` stands in the metadata of its schema.
        """
        records = self.records()
        table = pa.table({name: _column(records[name]) for name in records.dtype.names or ()})
        return table.replace_schema_metadata({_SQUARES: base64.b64encode(self.squares.tobytes())})

    @classmethod
    def from_arrow(cls, table: pa.Table) -> Self:
        """Looks as they were before `to_arrow`; more can be added.

        Raises:
            ValueError: It is not a table of looks.
        """
        try:
            width = table.schema.field("view_sum").type.list_size
            dim = width - COLOURS
            records = np.zeros(len(table), look_fields(dim))
            for name in records.dtype.names or ():
                records[name] = _values(table[name])
            squares = np.frombuffer(base64.b64decode((table.schema.metadata or {})[_SQUARES]))
            return cls._of(records, squares.reshape(width, width).copy())
        except (KeyError, AttributeError, TypeError, ValueError, pa.ArrowException) as error:
            raise ValueError(f"not a table of looks: {error}") from error

    @classmethod
    def merged(cls, dim: int, parts: Iterable[tuple[Looks, Mapping[int, int]]]) -> Self:
        """Looks of a whole video, of those of its windows in their order.

        Args:
            dim: As of the windows.
            parts: Looks of each window, and the id in the whole video of each of its ids. Tracks
                without one are left out.
        """
        whole = [np.zeros(0, look_fields(dim))]
        squares = np.zeros((dim + COLOURS, dim + COLOURS))
        for looks, ids in parts:
            records = looks.records()
            named = np.array([ids.get(i, -1) for i in records["track_id"].tolist()], np.int64)
            records["track_id"] = named
            whole.append(records[named >= 0])
            squares += looks.squares - _outer(records[named < 0])
        return cls._of(_joined(np.concatenate(whole)), squares)

    @classmethod
    def _of(cls, records: Array, squares: Array) -> Self:
        looks = cls(len(squares) - COLOURS)
        looks.squares = squares
        looks._records = np.concatenate([records, looks._records])
        looks._place = {i: place for place, i in enumerate(records["track_id"].tolist())}
        return looks


def _outer(records: Array) -> Array:
    """(width, width) share of the tracks' means in the outer products of their views."""
    records = records[records["views"] > 0]
    sums = records["view_sum"].astype(np.float64)
    return (sums / records["views"][:, None]).T @ sums


def _joined(records: Array) -> Array:
    """Records with one for each id, of records in the order of the windows."""
    ids, inverse = np.unique(records["track_id"], return_inverse=True)
    joined: Array = np.zeros(len(ids), records.dtype)
    first = np.lexsort((records["first_s"], inverse))
    first = first[np.searchsorted(inverse[first], np.arange(len(ids)))]
    last = np.lexsort((records["last_s"], inverse))
    last = last[np.searchsorted(inverse[last], np.arange(len(ids)), "right") - 1]
    for name in ("track_id", "first_s", "first_box", "first_velocity"):
        joined[name] = records[name][first]
    for name in ("last_s", "last_box", "last_velocity"):
        joined[name] = records[name][last]
    for name in ("boxes", "score_sum", "views", "view_sum"):
        np.add.at(joined[name], inverse, records[name])
    return joined


def centres(boxes: Array) -> Array:
    """Centres (..., 2) of boxes (..., 4) x, y, w, h."""
    return boxes[..., :2] + boxes[..., 2:] / 2


def _column(values: Array) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _values(column: pa.ChunkedArray) -> Array:
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):  # a table without rows has no chunk to combine
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], column.type)
    if not pa.types.is_fixed_size_list(column.type):
        return whole.to_numpy(zero_copy_only=False)
    return whole.flatten().to_numpy().reshape(-1, column.type.list_size)
