"""The figures of a whole run: totals, cost, where the time went, quality and people by video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.report.run_tables import RunTables

STAGES = {
    "decode_wait_s": "waiting for frames",
    "encode_s": "encoding frames",
    "step_s": "stepping tracks",
    "write_s": "writing tables",
}
"""Seconds of a worker by stage, as fields of `videos`, and what each is called."""

_OTHER = "other work"
_QUALITY_BINS = 20
_EXTREMES = 6
_BUSIEST = 15
_LEAST_S = 60.0  # two people in one second are not 7,200 an hour

# Most of a run's time may go to encoding and stepping: that is its work. These say what else to do.
_REMEDIES = {
    "decode_wait_s": "the disk, the network or the decoder is slower than the model: move the "
    "files closer, or lower decoding with sample.fps",
    "write_s": "the output is slow: write to a closer disk or bucket",
}
_WORTH_SAYING = 0.15


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole: its name, its seconds and its share in [0, 1]."""

    name: str
    seconds: float
    share: float


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the videos that are done.

    Attributes:
        videos, partial: Videos done, and those of them that could not be read to their end.
        frames, frames_encoded: Frames read, and those of them that the model looked at.
        video_s: Seconds of footage.
        people: Tracks.
        worker_s: Seconds that workers spent, on one video at a time each.
        quality: Mean of the frame quality over all frames; None without frames.
        low_share: Share of frames below the run's bound; None without frames.
    """

    videos: int
    partial: int
    frames: int
    frames_encoded: int
    video_s: float
    people: int
    worker_s: float
    quality: float | None
    low_share: float | None

    @property
    def frames_per_second(self) -> float:
        """Frames in a second of one worker."""
        return self.frames / self.worker_s if self.worker_s else 0.0

    @property
    def times_real_time(self) -> float:
        """Seconds of footage in a second of one worker."""
        return self.video_s / self.worker_s if self.worker_s else 0.0

    @property
    def people_per_hour(self) -> float | None:
        """Tracks in an hour of footage; None without footage."""
        return 3600 * self.people / self.video_s if self.video_s else None


def totals(run: RunTables) -> Totals:
    """Sum up the videos of a run.

    A worker that tracks several videos at a time (`cluster.streams`) spends each second on all of
    them, so its seconds are divided by their number where the settings give it.
    """
    videos = run.videos
    tracked = _numbers(videos, "frames_tracked")
    frames = int(tracked.sum())
    streams = (run.record["config"].get("cluster") or {}).get("streams") or 1
    return Totals(
        videos=len(videos),
        partial=videos["status"].to_pylist().count("partial"),
        frames=int(_numbers(videos, "frames_decoded").sum()),
        frames_encoded=int(_numbers(videos, "frames_encoded").sum()),
        video_s=float(_numbers(videos, "video_s").sum()),
        people=int(_numbers(videos, "num_tracks").sum()),
        worker_s=float(_elapsed(videos).sum()) / streams,
        quality=float(_numbers(videos, "quality_mean") @ tracked) / frames if frames else None,
        low_share=float(_numbers(videos, "low_quality_share") @ tracked) / frames
        if frames
        else None,
    )


def time_shares(videos: pa.Table) -> list[Share]:
    """Where the workers' seconds went, by stage; empty if nothing was tracked."""
    whole = float(_elapsed(videos).sum())
    if not whole:
        return []
    spent = {name: float(_numbers(videos, field).sum()) for field, name in STAGES.items()}
    # Starting, reading headers and making rows belong to no stage.
    spent[_OTHER] = max(0.0, whole - sum(spent.values()))
    whole = sum(spent.values())
    return [Share(name, seconds, seconds / whole) for name, seconds in spent.items()]


def advice(shares: Sequence[Share]) -> list[str]:
    """What to do about stages that take much time and are not the model's own work."""
    known = {name: _REMEDIES[field] for field, name in STAGES.items() if field in _REMEDIES}
    return [
        f"{100 * share.share:.0f} % of the time went to {share.name}: {known[share.name]}"
        for share in shares
        if share.name in known and share.share >= _WORTH_SAYING
    ]


def quality_hours(videos: pa.Table) -> list[float]:
    """Hours of footage by the median quality of their video, in equal bins over [0, 1]."""
    median, hours = _numbers(videos, "quality_p50"), _numbers(videos, "video_s") / 3600
    bins, _ = np.histogram(median, _QUALITY_BINS, (0.0, 1.0), weights=hours)
    return [float(value) for value in bins]


def by_quality(videos: pa.Table) -> tuple[list[int], list[int]]:
    """Rows of the worst videos, worst first, and of the best, best first; no row is in both."""
    order = np.argsort(_numbers(videos, "quality_p50"), kind="stable").tolist()
    worst = order[: min(_EXTREMES, (len(order) + 1) // 2)]
    best = order[::-1][: min(_EXTREMES, len(order) // 2)]
    return worst, best


def busiest(videos: pa.Table) -> list[dict[str, Any]]:
    """The videos with most people in an hour of footage, most first."""
    rate = people_per_hour(videos)
    rows = [int(i) for i in np.argsort(-rate, kind="stable")[:_BUSIEST] if rate[i] > 0]
    names, counts = videos["relative_path"], videos["num_tracks"]
    return [
        {"name": names[i].as_py(), "people": counts[i].as_py(), "per_hour": float(rate[i]),
         "share": float(rate[i] / rate[rows[0]]), "video_id": videos["video_id"][i].as_py()}
        for i in rows
    ]  # fmt: skip


def people_per_hour(videos: pa.Table) -> np.ndarray:
    """Tracks in an hour of footage, for each row; a shorter video counts as a minute."""
    seconds = np.maximum(_numbers(videos, "video_s"), _LEAST_S)
    return 3600 * _numbers(videos, "num_tracks") / seconds


def what_to_do(letter: Mapping[str, Any]) -> str:
    """The remedy for a dead letter, by its kind."""
    again = "run again with retry_dead_letters=true"
    remedies = {
        "input": "Open the file in a player. If it does not play there, copy or export it again "
        f"from where it came; then {again}. If it is not a video, move it out of the archive.",
        "poison": "Tracking this file ended its worker more than once. Give a worker more memory, "
        f"or re-encode the file (ffmpeg -i FILE -c:v libx264 NEW); then {again}.",
        "deadline": "The file took longer than allowed. Raise limits.deadline_base_s or "
        f"limits.deadline_frame_s, or check the disk it lies on; then {again}.",
    }
    return remedies.get(letter["kind"], f"Read the reason; then {again}.")


def _elapsed(videos: pa.Table) -> np.ndarray:
    """Seconds spent on each video."""
    rate = _numbers(videos, "frames_per_second")
    frames = _numbers(videos, "frames_decoded")
    return np.divide(frames, rate, out=np.zeros_like(rate), where=rate > 0)


def _numbers(videos: pa.Table, field: str) -> np.ndarray:
    """A column as float64, 0 for null."""
    return videos[field].to_numpy().astype(np.float64) if len(videos) else np.zeros(0)
