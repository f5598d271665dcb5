"""Outputs of tracking runs, written as tables without tracking, with real videos or without."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.archive.dead_letters import write_dead_letter
from pipeline.storage.files import ArchiveFile, create_if_absent
from pipeline.storage.run_record import claim_output
from pipeline.storage.schema import (
    FRAMES,
    MANIFEST,
    SEAMS,
    TRACK_SUMMARY,
    TRACKS,
    VIDEOS,
    rows_table,
    table_uri,
    to_parquet_bytes,
)
from pipeline.trust.summary import summary_table
from pipeline.trust.sums import TrackSums
from pipeline.video.probe import probe
from tests.videos import rectangle, write_video

RATE, WIDTH, HEIGHT = 25, 160, 96


@dataclass(frozen=True)
class Clip:
    """A video of a run. Track 1 is the white rectangle of the picture, others stand beside it.

    Attributes:
        name: path in the archive.
        frames: number of frames, 25 a second.
        tracks: of each track id, from 1, the first frame and the one after the last.
        quality: of all frames, or of each.
        cuts: seconds of first frames of shots.
        made: whether the video file is written.
        trust: of each track; empty: of none.
        summary: whether there is a file of `track_summary`.
    """

    name: str
    frames: int = 50
    tracks: Sequence[tuple[int, int]] = ((0, 50), (10, 40))
    quality: float | Sequence[float] = 0.9
    cuts: Sequence[float] = ()
    status: str = "ok"
    error: str | None = None
    made: bool = True
    codec: str = "libx264"
    trust: Sequence[float] = ()
    summary: bool = True


def write_run(
    folder: Path, clips: Sequence[Clip], listed: int | None = None, dead: Sequence[str] = ()
) -> Path:
    """Write a run and its archive below a folder; returns the run's output.

    Args:
        folder: a folder.
        clips: videos that are done.
        listed: files in the manifest; None: as many as have a result. A negative number: the
            manifest is not written yet.
        dead: names of dead letters.
    """
    archive, output = folder / "archive", folder / "run"
    deciding = {"weights": "0" * 64, "low_quality_below": 0.5}
    config = {"input": str(archive), "output": str(output), "cluster": {"streams": None}}
    claim_output(str(output), "track", deciding, config)
    headers = [_write_video_rows(output, archive, clip) for clip in clips]
    for name in dead:
        write_dead_letter(
            str(output), video_id=f"dead-{len(name)}", uri=str(archive / name),
            relative_path=name, stage="probe", kind="input", message=f"not a video: {name}",
        )  # fmt: skip
    count = len(clips) + len(dead) if listed is None else listed
    more = [
        {"video_id": f"more-{n}", "uri": "x", "relative_path": f"more-{n}", "size_bytes": 1}
        for n in range(count - len(headers))
    ]
    if count >= 0:
        manifest = to_parquet_bytes(rows_table([*headers, *more], MANIFEST))
        create_if_absent(table_uri(str(output), "manifest", "manifest"), manifest)
    return output


def _write_video_rows(output: Path, archive: Path, clip: Clip) -> dict:
    path = archive / clip.name
    header = _header(path, clip)
    video_id = header["video_id"]
    index = np.arange(clip.frames)
    quality = np.broadcast_to(np.float32(clip.quality), clip.frames)
    seen = [np.arange(first, min(end, clip.frames)) for first, end in clip.tracks]
    frame = np.concatenate([np.zeros(0, int), *seen])
    number = np.repeat(np.arange(1, len(seen) + 1), [len(part) for part in seen])
    order = np.lexsort((number, frame))
    frame, number = frame[order], number[order]
    tracks = pa.table(
        {"video_id": [video_id] * len(frame), "frame_index": frame, "time_s": frame / RATE,
         "track_id": number, **boxes_of(number, frame), "score": np.full(len(frame), 0.9),
         "class_name": ["person"] * len(frame), "semantic_weight": np.full(len(frame), 0.2)}
    ).cast(TRACKS)  # fmt: skip
    people = np.bincount(frame, minlength=clip.frames)
    statistics = dict.fromkeys(("sharpness", "noise", "blockiness", "luma", "contrast"), 0.5)
    cuts = {round(time_s * RATE) for time_s in clip.cuts}
    frames = [
        {"video_id": video_id, "frame_index": at, "time_s": at / RATE,
         "quality": float(quality[at]), **statistics, "semantic_weight": 1 - quality[at],
         "num_tracks": int(people[at]), "encoded": True, "cut": at in cuts}
        for at in index.tolist()
    ]  # fmt: skip
    low, middle, high = (float(q) for q in np.percentile(quality, (5, 50, 95)))
    row = {
        **header,
        "status": clip.status, "error": clip.error, "frames_decoded": clip.frames,
        "frames_tracked": clip.frames, "frames_encoded": clip.frames,
        "video_s": clip.frames / RATE, "num_tracks": len(clip.tracks),
        "quality_mean": float(quality.mean()), "quality_p05": low, "quality_p50": middle,
        "quality_p95": high, "low_quality_share": float((quality < 0.5).mean()),
        "decode_wait_s": 0.5, "decode_busy_s": 1.0, "encode_s": 1.0, "step_s": 0.3,
        "write_s": 0.1, "frames_per_second": clip.frames / 2.0, "model_sha256": "0" * 64,
        "config_hash": "0" * 16, "code_version": "0", "split_mode": "video", "segments": 1,
        "seams": 0, "seam_matches": 0, "seam_conflicts": 0, "seam_unmatched": 0, "rejoined": 0,
        "cut_times_s": list(clip.cuts),
    }  # fmt: skip
    tables = {"tracks": tracks, "frames": rows_table(frames, FRAMES),
              "seams": SEAMS.empty_table(), "videos": rows_table([row], VIDEOS)}  # fmt: skip
    if clip.summary:
        tables["track_summary"] = _summary(video_id, tracks, index, quality, clip.trust)
    for name, table in tables.items():
        target = Path(table_uri(str(output), name, video_id))
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, target)
    return header


def _summary(
    video_id: str, tracks: pa.Table, index: np.ndarray, quality: np.ndarray, trust: Sequence[float]
) -> pa.Table:
    sums = TrackSums((WIDTH, HEIGHT), index, quality)
    sums.add({name: tracks[name].to_numpy() for name in tracks.column_names})
    table = summary_table(video_id, sums, None)
    if not trust:
        return table
    place = table.column_names.index("trust")
    return table.set_column(place, TRACK_SUMMARY.field("trust"), pa.array(trust, pa.float32()))


def boxes_of(number: np.ndarray, frame: np.ndarray) -> dict[str, np.ndarray]:
    """Boxes of tracks in frames, by column."""
    corners = np.array(
        [rectangle(at, WIDTH, HEIGHT) for at in range(int(frame.max(initial=0)) + 1)]
    )
    x0, y0, x1, y1 = corners[frame].T
    first = number == 1
    return {
        "x": np.where(first, x0, 13 * number % (WIDTH - 20)).astype(np.float32),
        "y": np.where(first, y0, 50).astype(np.float32),
        "w": np.where(first, x1 - x0, 16).astype(np.float32),
        "h": np.where(first, y1 - y0, 40).astype(np.float32),
    }


def _header(path: Path, clip: Clip) -> dict:
    if clip.made:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, clip.frames, WIDTH, HEIGHT, rate=RATE, codec=clip.codec)
        info = probe(ArchiveFile(str(path), clip.name, path.stat().st_size, None))
        return {name: getattr(info, name) for name in info.__slots__}
    return {
        "video_id": path.stem, "uri": str(path), "relative_path": clip.name, "size_bytes": 1,
        "container": "mov,mp4,m4a,3gp,3g2,mj2", "codec": "h264", "pixel_format": "yuv420p",
        "width": WIDTH, "height": HEIGHT, "rotation": 0, "fps": float(RATE),
        "time_base": "1/12800", "variable_rate": False, "frames_expected": clip.frames,
        "duration_s": clip.frames / RATE,
    }  # fmt: skip
