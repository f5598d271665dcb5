"""Windows of frames in which only some are encoded, and the rows of the others.

A still frame shows nothing new. It is not encoded, and the state of the tracks is not stepped: its
rows repeat those of the last encoded frame, at its own index and time. Tracks that were unseen then
stay unseen, and age by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.tracking.tables import Columns, WindowRows
from pipeline.video.decode import Frame

_MOST_FRAMES = 32  # times the frames to encode, so that a quiet hour shows its progress


def next_window(frames: Iterator[Frame], size: int) -> list[Frame]:
    """Take the next frames, of which at most `size` are to be encoded; empty at the end."""
    window: list[Frame] = []
    fresh = 0
    for frame in frames:
        window.append(frame)
        fresh += not frame.still
        if fresh == size or len(window) == _MOST_FRAMES * size:
            break
    return window


def carried_before(window: Sequence[Frame], carried: int) -> list[int]:
    """For each frame of a window that is not still, the number of still frames just before it.

    Args:
        window: The frames.
        carried: Still frames just before the window.
    """
    counts = []
    for frame in window:
        if not frame.still:
            counts.append(carried)
        carried = carried + 1 if frame.still else 0
    return counts


def carried_after(window: Sequence[Frame], carried: int) -> int:
    """The number of still frames at the end of a window; arguments as of `carried_before`."""
    for frame in window:
        carried = carried + 1 if frame.still else 0
    return carried


def with_carried(
    window: Sequence[Frame], rows: WindowRows | None, last: WindowRows | None
) -> WindowRows:
    """Rows of all frames of a window.

    Args:
        window: The frames, at least one.
        rows: Rows of those that are not still; None if all are.
        last: Rows of the last encoded frame before the window; None if there is none. Then the
            first frame of the window must not be still.
    """
    still = np.array([frame.still for frame in window])
    known = [part for part in (last, rows) if part is not None]
    # For each frame, the one of the known frames whose rows it gets.
    source = np.cumsum(~still) - (last is None)
    frames = {name: values[source] for name, values in _joined([k.frames for k in known]).items()}
    index = np.array([frame.index for frame in window], np.int64)
    time_s = np.array([frame.time_s for frame in window], np.float64)
    cut = frames["cut"] & ~still
    frames |= {"frame_index": index, "time_s": time_s, "encoded": ~still, "cut": cut}

    counts = np.concatenate([k.frames["num_tracks"] for k in known])
    first = (np.cumsum(counts) - counts)[source]
    counts = counts[source]
    row = np.repeat(np.arange(len(window)), counts)
    place = np.arange(len(row)) - (np.cumsum(counts) - counts)[row]
    taken = first[row] + place
    tracks = {name: values[taken] for name, values in _joined([k.tracks for k in known]).items()}
    tracks |= {"frame_index": index[row], "time_s": time_s[row]}
    return WindowRows(tracks, frames)


def last_frame(rows: WindowRows) -> WindowRows:
    """The rows of the last frame."""
    count = len(rows.tracks["track_id"]) - int(rows.frames["num_tracks"][-1])
    tracks = {name: values[count:] for name, values in rows.tracks.items()}
    return WindowRows(tracks, {name: values[-1:] for name, values in rows.frames.items()})


def _joined(parts: Sequence[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
