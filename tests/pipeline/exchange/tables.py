"""Runs as tables, without videos: any boxes, times and names."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from pipeline.storage.schema import FRAMES, TRACK_SUMMARY, TRACKS, VIDEOS, table_uri

_DEFAULTS = {
    pa.string(): "", pa.int64(): 0, pa.int32(): 0, pa.float64(): 0.0, pa.float32(): 0.0,
    pa.bool_(): False,
}  # fmt: skip


@dataclass(frozen=True)
class Video:
    """One video of a run.

    Attributes:
        name: path in the archive.
        size: width and height.
        frames: decoded frames.
        index: numbers of the tracked ones.
        times: seconds of these.
        rows: frame, id and x, y, w, h of each box.
        trust: trust of a track by its id; None where the run has no summary.
    """

    name: str
    size: tuple[int, int] = (320, 240)
    frames: int = 10
    index: tuple[int, ...] = tuple(range(10))
    times: tuple[float, ...] = tuple(n / 25 for n in range(10))
    rows: tuple[tuple[int, int, tuple[float, ...]], ...] = ()
    trust: dict[int, float | None] | None = None
    fps: float | None = 25.0
    uri: str = "/nowhere/video.mp4"
    video_id: str = field(default="")

    @property
    def boxes(self) -> dict[tuple[int, int], list[float]]:
        """Boxes by frame and id, as the table has them."""
        return {(f, i): np.float32(box).tolist() for f, i, box in self.rows}


def write_tables(run: Path, videos: list[Video]) -> str:
    """Write the tables of some videos; their ids are v0, v1, …"""
    for number, video in enumerate(videos):
        video_id = video.video_id or f"v{number}"
        times = dict(zip(video.index, video.times, strict=True))
        rows = sorted(video.rows)
        tracks = [
            {"video_id": video_id, "frame_index": f, "time_s": times[f], "track_id": i,
             **dict(zip("xywh", box, strict=True)), "score": 0.5, "class_name": "person",
             "semantic_weight": 0.25}
            for f, i, box in rows
        ]  # fmt: skip
        frames = [
            {"video_id": video_id, "frame_index": f, "time_s": t, "quality": 0.5}
            for f, t in times.items()
        ]
        row = {
            "video_id": video_id, "relative_path": video.name, "uri": video.uri,
            "width": video.size[0], "height": video.size[1], "frames_decoded": video.frames,
            "video_s": max((*video.times, 0.0)) + 0.04, "fps": video.fps, "cut_times_s": [],
        }  # fmt: skip
        tables = {"tracks": (tracks, TRACKS), "frames": (frames, FRAMES), "videos": ([row], VIDEOS)}
        if video.trust is not None:
            trust = [
                {"video_id": video_id, "track_id": i, "trust": t} for i, t in video.trust.items()
            ]
            tables["track_summary"] = (trust, TRACK_SUMMARY)
        for name, (content, schema) in tables.items():
            path = Path(table_uri(str(run), name, video_id))
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(_filled(content, schema), path, row_group_size=7)
    return str(run)


def _filled(rows: list[dict], schema: pa.Schema) -> pa.Table:
    """A table in which fields that a test does not give have the default of their type."""
    for row in rows:
        for column in schema:
            if not column.nullable:
                row.setdefault(column.name, _DEFAULTS.get(column.type))
    return pa.Table.from_pylist(rows, schema)


NAMES = st.text(st.sampled_from("ab <>&'\"é猫%?#=;,.-_()\\"), min_size=1, max_size=12).filter(
    lambda name: name.strip(" .")
)


@st.composite
def videos(draw: st.DrawFn, inside: bool = False) -> Video:
    """A video of any rate, with any tracked frames, ids and boxes; none of these too."""
    width, height = draw(st.integers(64, 4096)), draw(st.integers(64, 4096))
    step, frames = draw(st.integers(1, 3)), draw(st.integers(0, 30))
    index = tuple(range(0, frames, step))
    gaps = draw(st.lists(st.floats(0.001, 2), min_size=len(index), max_size=len(index)))
    rows = []
    for track_id in draw(st.lists(st.integers(1, 10**6), max_size=3, unique=True)):
        low = 0.0 if inside else -50.0
        x = draw(st.floats(low, width - 20, width=32))
        y = draw(st.floats(low, height - 20, width=32))
        w, h = draw(st.floats(2, 20, width=32)), draw(st.floats(2, 20, width=32))
        shake = draw(st.floats(0, 8))
        for frame in index:
            if draw(st.booleans()):
                left = min(max(x + shake * np.sin(frame), low), width - w - 1)
                rows.append((frame, track_id, (float(np.float32(left)), y, w, h)))
    return Video(
        draw(NAMES) + ".mp4", (width, height), frames, index, tuple(np.cumsum(gaps).tolist()),
        tuple(rows),
    )  # fmt: skip
