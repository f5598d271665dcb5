"""The output of a run that never was: tables of made-up videos with realistic lengths, from a seed.

Measures of queries need thousands of videos, which nobody can track for that. Lengths of videos
and of tracks are log-normal, as they are in archives; boxes drift with noise, so that they
compress as real ones do.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.schema import FRAMES, SCHEMA_VERSION, TRACKS, VIDEOS, rows_table, table_uri
from pipeline.trust.summary import summary_table
from pipeline.trust.sums import TrackSums

_RATE = 10.0  # frames a second
_VIDEO_S, _TRACK_S = 30.0, 6.0  # medians
_SPREAD = 0.8  # of the logarithms
_LONGEST = 16  # times the median
_CAMERAS = 40
_WIDTH, _HEIGHT = 1280, 720


@dataclass(frozen=True, slots=True)
class MadeRun:
    """What a made run holds.

    Attributes:
        videos: Ids, in the order of the archive.
        tracks, frames: Numbers of rows.
    """

    videos: list[str]
    tracks: int
    frames: int


def make_run(output: Path, videos: int, seed: int = 0, first: int = 0) -> MadeRun:
    """Write the tables of made videos into a folder of this machine, and its run.json.

    Args:
        output: The folder; what is there stays.
        videos: Number of videos.
        seed: Of the rows. A video's rows depend on this and on its number alone.
        first: Number of the first video.
    """
    for table in ("tracks", "frames", "track_summary", "videos"):
        (output / table).mkdir(parents=True, exist_ok=True)
    record = {"job": "track", "schema_version": SCHEMA_VERSION, "deciding": {}}
    (output / "run.json").write_text(json.dumps(record))
    ids = []
    tracks_rows = frames_rows = 0
    for number in range(first, first + videos):
        random = np.random.default_rng((seed, number))
        relative_path = f"cam{number % _CAMERAS:02d}/2026-03-{1 + number % 28:02d}/{number:06d}.mp4"
        video_id = f"{number:06d}-{random.bytes(6).hex()}"
        count = round(float(_lognormal(random, _VIDEO_S, 1)[0]) * _RATE)
        tracks = _tracks(video_id, count, random)
        frames = _frames(video_id, count, tracks, random)
        tables = {
            "tracks": tracks,
            "frames": frames,
            "track_summary": _summary(video_id, tracks, frames),
            "videos": _row(video_id, relative_path, tracks, frames),
        }
        for table, rows in tables.items():
            # Not `storage.publish`, which syncs each file: nobody loses these.
            pq.write_table(rows, table_uri(str(output), table, video_id), compression="zstd")
        ids.append(video_id)
        tracks_rows += len(tracks)
        frames_rows += len(frames)
    return MadeRun(ids, tracks_rows, frames_rows)


def _lognormal(random: np.random.Generator, median: float, size: int) -> np.ndarray:
    drawn = median * np.exp(_SPREAD * random.standard_normal(size))
    return np.clip(drawn, 1 / _RATE, _LONGEST * median)


def _tracks(video_id: str, frames: int, random: np.random.Generator) -> pa.Table:
    """Rows of the people in a video of this many frames, of whom some videos have none."""
    count = int(random.poisson(frames / _RATE / _TRACK_S * random.gamma(2.0, 1.5)))
    start = random.integers(0, frames, count)
    length = (np.ceil(_lognormal(random, _TRACK_S, count) * _RATE)).astype(np.int64)
    length = np.minimum(length, frames - start)
    track_id = np.repeat(np.arange(count), length)
    since = np.arange(len(track_id)) - np.repeat(np.cumsum(length) - length, length)
    frame = np.repeat(start, length) + since
    rows = len(track_id)

    def drift(low: float, high: float, speed: float) -> np.ndarray:
        begin = np.repeat(random.uniform(low, high, count), length)
        step = np.repeat(random.normal(0, speed, count), length)
        return (begin + step * since + random.normal(0, 0.5, rows)).astype(np.float32)

    columns = {
        "video_id": np.full(rows, video_id, object),
        "frame_index": frame,
        "time_s": frame / _RATE,
        "track_id": track_id,
        "x": drift(0, _WIDTH, 2.0),
        "y": drift(0, _HEIGHT, 1.0),
        "w": np.abs(drift(20, 120, 0.1)) + 1,
        "h": np.abs(drift(40, 300, 0.2)) + 1,
        "score": random.beta(8, 2, rows).astype(np.float32),
        "class_name": np.full(rows, "person", object),
        "semantic_weight": random.beta(3, 3, rows).astype(np.float32),
    }
    by = [("frame_index", "ascending"), ("track_id", "ascending")]
    return pa.table(columns, schema=TRACKS).sort_by(by)


def _frames(video_id: str, count: int, tracks: pa.Table, random: np.random.Generator) -> pa.Table:
    index = np.arange(count)

    def value(mean: float) -> np.ndarray:
        slow = np.cumsum(random.normal(0, 0.003, count))
        return np.clip(mean + slow + random.normal(0, 0.01, count), 0, 1).astype(np.float32)

    mean = float(random.beta(4, 2))
    measures = ("quality", "sharpness", "noise", "blockiness", "luma", "contrast")
    columns = {
        "video_id": np.full(count, video_id, object),
        "frame_index": index,
        "time_s": index / _RATE,
        **{name: value(mean) for name in measures},
        "semantic_weight": value(1 - mean),
        "num_tracks": np.bincount(tracks["frame_index"].to_numpy(), minlength=count).astype(
            np.int32
        ),
        "encoded": random.random(count) < 0.9,
        "cut": np.zeros(count, bool),
    }
    return pa.table(columns, schema=FRAMES)


def _summary(video_id: str, tracks: pa.Table, frames: pa.Table) -> pa.Table:
    index, quality = (frames[name].to_numpy() for name in ("frame_index", "quality"))
    sums = TrackSums((_WIDTH, _HEIGHT), index, quality)
    columns = (name for name in tracks.column_names if name != "video_id")
    sums.add({name: tracks[name].to_numpy() for name in columns})
    return summary_table(video_id, sums, None)


def _row(video_id: str, relative_path: str, tracks: pa.Table, frames: pa.Table) -> pa.Table:
    quality = frames["quality"].to_numpy().astype(np.float64)
    _, lengths = np.unique(tracks["track_id"].to_numpy(), return_counts=True)
    p05, p50, p95 = (float(p) for p in np.percentile(quality, (5, 50, 95)))
    row: dict[str, object] = {
        "video_id": video_id,
        "uri": f"/archive/{relative_path}",
        "relative_path": relative_path,
        "size_bytes": 50_000 * len(frames),
        "container": "mp4",
        "codec": "h264",
        "pixel_format": "yuv420p",
        "width": _WIDTH,
        "height": _HEIGHT,
        "rotation": 0,
        "fps": _RATE,
        "time_base": "1/12800",
        "variable_rate": False,
        "frames_expected": len(frames),
        "duration_s": len(frames) / _RATE,
        "status": "ok",
        "frames_decoded": len(frames),
        "frames_tracked": len(frames),
        "frames_encoded": int(frames["encoded"].to_numpy().sum()),
        "video_s": len(frames) / _RATE,
        "num_tracks": len(lengths),
        "track_length_mean": float(lengths.mean()) if len(lengths) else None,
        "track_length_median": float(np.median(lengths)) if len(lengths) else None,
        "track_length_max": int(lengths.max()) if len(lengths) else None,
        "quality_mean": float(quality.mean()),
        "quality_p05": p05,
        "quality_p50": p50,
        "quality_p95": p95,
        "low_quality_share": float((quality < 0.5).mean()),
        **dict.fromkeys(("decode_wait_s", "decode_busy_s", "encode_s", "step_s", "write_s"), 1.0),
        "frames_per_second": 100.0,
        "model_sha256": "0" * 64,
        "config_hash": "0" * 16,
        "code_version": "made",
        "split_mode": "video",
        "segments": 1,
        **dict.fromkeys(("seams", "seam_matches", "seam_conflicts", "seam_unmatched"), 0),
        "rejoined": 0,
        "cut_times_s": [],
    }
    return rows_table([row], VIDEOS)
