"""What a run would take: time, money, memory and disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow.parquet as pq

from pipeline.planning.asked import Asked, Chunk
from pipeline.planning.calibration import Calibration
from pipeline.planning.config import PlanConfig
from pipeline.planning.costs import Costs, spread, work
from pipeline.speed.schedule import finish
from pipeline.storage import files as storage
from pipeline.storage.reading import read_batches, table_files

RAY_START_S = 6.0
"""Seconds until the driver and Ray are up, beside the start of an actor's own process."""

_LOOKED_AT = 32  # files of an earlier run that are looked at for the bytes of a frame


@dataclass(frozen=True, slots=True)
class Span:
    """A figure, and the range in which it is expected; None where the range is not known."""

    expected: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Time:
    """How long a run takes.

    Attributes:
        wall_s: Seconds from its start to its end.
        worker_hours: Hours of workers that are paid, idle ones at the end too.
        busy: Share of them in which a worker works.
        frames_s: Frames a second of a worker, over the whole archive.
        start_s: Seconds of it until workers track.
        longest_s: Seconds of the longest piece that one worker tracks alone; no number of workers
            makes a run shorter.
        longest: The video of that piece.
    """

    wall_s: Span
    worker_hours: Span
    busy: float
    frames_s: float
    start_s: float
    longest_s: float
    longest: str


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes that a run writes.

    Attributes:
        output: Tables of the output. The page of a run is not in it.
        temporary: Of the temporary folders of all workers together, at most.
        source: Where the bytes of a frame are from.
    """

    output: float
    temporary: float
    source: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would take; None where it is not known.

    Attributes:
        workers: Most workers of a chunk of the archive.
        sharing: Workers that have a core or GPU of their own; others share them.
        time, disk: As their classes say.
        cost: In `currency`.
        notes: What the figures rest on, and why some are missing.
    """

    workers: int
    sharing: int
    time: Time | None = None
    disk: Disk | None = None
    cost: Span | None = None
    notes: list[str] = field(default_factory=list)


def estimate(config: PlanConfig, asked: Asked, calibration: Calibration | None) -> Estimate:
    """Put the figures together.

    Args:
        config: Settings of the plan.
        asked: The work.
        calibration: The trial, if there was one.

    Raises:
        StorageError: The output cannot be read.
    """
    workers = max((chunk.workers for chunk in asked.chunks), default=0)
    sharing, notes = workers, list[str]()
    if not asked.chunks:
        return Estimate(workers, sharing)
    readings = calibration.readings if calibration else []
    costs = Costs.measured(readings) if readings else None
    factor = spread(readings, asked.chunks) if readings else None
    source = f"{len(readings)} stretches tracked here"
    frame_bytes = costs.frame_bytes if costs else None
    if frame_bytes is None and config.output:
        frame_bytes = bytes_before(config.output)
        source = "the tables that are in the output already"
    disk = None
    if frame_bytes is not None:
        disk = _disk(asked, frame_bytes, costs.video_bytes or 0.0 if costs else 0.0, source)
        if set(asked.modes) - {"video"}:
            notes.append(
                "while long videos are under way their parts lie in the output too, at most as "
                "much as the temporary space"
            )
    if config.rate is not None:
        costs, factor = Costs.given(config.rate), None
        notes.append(f"time by rate={config.rate:g} frames/s of a worker, which was given")
    elif calibration is not None and asked.place.here and workers > calibration.processes:
        sharing = calibration.processes
        notes.append(
            f"{workers} workers would share the {sharing} of this machine; for other machines give "
            "rate= (frames/s of a worker)"
        )
    elif not asked.place.here:
        notes.append("a worker of the cluster is taken to be as fast as one here")
    if costs is None:
        notes.append("no time and no cost: nothing was tracked here, and rate= is not given")
        return Estimate(workers, sharing, None, disk, None, notes)
    start_s = calibration.start_s if calibration else 0.0
    start_s += 0.0 if config.cluster.workers == 0 else RAY_START_S
    time = _time(asked, costs, factor, start_s, sharing)
    cost = None
    if config.price_per_hour is not None:
        cost = _times(time.worker_hours, config.price_per_hour)
    return Estimate(workers, sharing, time, disk, cost, notes)


def _time(asked: Asked, costs: Costs, factor: float | None, start_s: float, sharing: int) -> Time:
    wall_s = paid_s = 0.0
    for chunk in asked.chunks:
        seconds = costs.seconds(chunk)
        count = min(chunk.workers, sharing)
        chunk_s = finish(seconds.tolist(), count)
        wall_s += chunk_s
        paid_s += chunk_s * count
    busy_s = work(costs, asked.chunks)
    longest_s, longest = _longest(asked, costs)
    workers = max(min(chunk.workers, sharing) for chunk in asked.chunks)
    paid_s += start_s * workers

    def span(work_s: float, fixed_s: float, scale: float = 1.0) -> Span:
        low, high = (None, None) if factor is None else (work_s / factor, work_s * factor)
        return Span(
            (work_s + fixed_s) * scale,
            None if low is None else (low + fixed_s) * scale,
            None if high is None else (high + fixed_s) * scale,
        )

    return Time(
        wall_s=span(wall_s, start_s),
        worker_hours=span(paid_s - start_s * workers, start_s * workers, 1 / 3600),
        busy=busy_s / paid_s,
        frames_s=sum(sum(chunk.frames) for chunk in asked.chunks) / busy_s,
        start_s=start_s,
        longest_s=longest_s,
        longest=longest,
    )


def _longest(asked: Asked, costs: Costs) -> tuple[float, str]:
    """Seconds of the longest piece of work, and its video."""
    pieces = Chunk(workers=1)
    for pixels, (_, frames) in asked.longest.items():
        pieces.frames.append(frames)
        pieces.pixels.append(pixels)
    seconds = costs.seconds(pieces)
    place = int(seconds.argmax())
    return float(seconds[place]), [path for path, _ in asked.longest.values()][place]


def _times(span: Span, factor: float) -> Span:
    return Span(
        span.expected * factor,
        None if span.low is None else span.low * factor,
        None if span.high is None else span.high * factor,
    )


def _disk(asked: Asked, frame_bytes: float, video_bytes: float, source: str) -> Disk:
    output = frame_bytes * asked.frames + video_bytes * asked.videos
    temporary = max(_at_once(chunk, frame_bytes) for chunk in asked.chunks)
    return Disk(output, temporary, source)


def _at_once(chunk: Chunk, frame_bytes: float) -> float:
    """Bytes of the rows of the largest pieces that workers can have under way together."""
    frames = np.sort(np.frombuffer(chunk.frames, np.float64))[-chunk.workers :]
    return float(frames.sum()) * frame_bytes


def bytes_before(output: str) -> float | None:
    """Bytes of an output's tables for a frame that was read; None if no video is done.

    Raises:
        StorageError: The output cannot be read.
    """
    total, rows = 0, 0
    for table in ("frames", "tracks"):
        for uri in table_files(output, table)[:_LOOKED_AT]:
            with storage.open_binary(uri) as source:
                total += source.seek(0, 2)
                rows += pq.read_metadata(source).num_rows if table == "frames" else 0
    columns = ["frames_decoded", "frames_tracked"]
    decoded = tracked = 0
    for batch in islice(read_batches(output, "videos", columns), _LOOKED_AT):
        decoded += sum(batch["frames_decoded"].to_pylist())
        tracked += sum(batch["frames_tracked"].to_pylist())
    # Frames that sample.fps leaves out are read, but have no rows.
    return total / rows * tracked / decoded if rows and decoded else None
