"""What the driver of `vsdmot track` needs for an archive of many files: RAM, and time.

The files are real videos, links to one of a few kilobytes or objects of a store. The driver is the
real one, from the list of files to the summary, but its worker is not: each video has its result
at once, so that what remains is the driver's work.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import pyarrow.parquet as pq
from rich.console import Console

from model.track.checkpoint import CheckpointMetadata, save_tracker
from model.track.tracker import Tracker
from pipeline.archive.inputs import find_files
from pipeline.archive.plan import Segment
from pipeline.runtime.settings import ClusterConfig, MlflowConfig
from pipeline.runtime.stop import StopRequest
from pipeline.speed.archives.s3_server import s3_client, s3_server
from pipeline.speed.footage import long_video
from pipeline.speed.one_core import MeasureError, all_cores
from pipeline.speed.peak_memory import peak_memory
from pipeline.speed.readings import Measure
from pipeline.speed.tiny import TINY
from pipeline.tracking import run
from pipeline.tracking.config import TrackConfig
from pipeline.tracking.settings import worker_settings
from pipeline.tracking.worker import SegmentResult

_FOLDER = 1000  # files of a folder
_IN_STORE = 10_000  # greatest number of objects: the store of the measure is slow


@dataclass(frozen=True, slots=True)
class Pass:
    """One run over an archive.

    Attributes:
        seconds: All of it.
        first_video_s: Until the first video would be tracked; None if all were done.
        driver_mb: Megabytes (10^6 bytes) of the driver at its peak, above those before the run.
        videos: Videos that would have been tracked.
    """

    seconds: float
    first_video_s: float | None
    driver_mb: float
    videos: int


def inputs_measure(inputs: int) -> Measure:
    """Measure the driver at 1,000, 10,000 and so on up to this number of files.

    Raises:
        MeasureError: A run found other videos than there are, or the store did not start.
    """
    sizes = [size for size in (1000, 10_000, 200_000) if size < inputs] + [inputs]
    facts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = folder / "clip.mp4"
        long_video(clip, 2, 2, 64, 96)
        weights = folder / "tiny.safetensors"
        save_tracker(weights, Tracker(TINY).eval(), CheckpointMetadata(model=TINY))
        for size in sizes:
            root = folder / f"disk-{size}"
            _link(clip, root, size)
            facts |= _both_runs("a disk", str(root), weights, folder / f"of-disk-{size}", size)
        if importlib.util.find_spec("moto") is None:
            facts["a store"] = "not measured: moto, which makes one, is not installed"
        else:
            with _store() as client:
                for size in sorted({min(size, _IN_STORE) for size in sizes}):
                    url = _upload(client, clip, size)
                    facts |= _both_runs("S3", url, weights, folder / f"of-store-{size}", size)
    return Measure(
        "the driver, by the number of inputs",
        "videos of 2 frames; headers are read by one process of 16 threads, no video is tracked",
        facts=facts,
    )


def _both_runs(
    place: str, root: str, weights: Path, output: Path, size: int
) -> dict[str, dict[str, Any]]:
    """A first run, and one over the archive when all of it is done."""
    with all_cores() as call:
        first: Pass = call(_run, root, weights, output)
    _finish(output)
    with all_cores() as call:
        second: Pass = call(_run, root, weights, output)
    if (first.videos, second.videos) != (size, 0):
        raise MeasureError(
            f"{first.videos} and {second.videos} videos were found in {root}, not {size} and 0"
        )
    name = f"{size:,} on {place}"
    return {f"{name}, new": asdict(first), f"{name}, all of them done": asdict(second)}


def _run(root: str, weights: Path, output: Path) -> Pass:
    """Run the driver in this process, after a small run that imports and fills caches."""
    with tempfile.TemporaryDirectory() as name:
        few = Path(name) / "few"
        clip = few / "0.mp4"
        few.mkdir()
        long_video(clip, 2, 2, 64, 96)
        _driven(str(few), weights, Path(name) / "out")
        if "://" in root:
            next(find_files(root, str(output)))
    gc.collect()
    before = psutil.Process().memory_info().rss
    started = time.perf_counter()
    with peak_memory() as highest:
        videos, first = _driven(root, weights, output)
    seconds = time.perf_counter() - started
    until_first = None if first is None else first - started
    return Pass(seconds, until_first, (highest[0] - before) / 1e6, videos)


def _driven(root: str, weights: Path, output: Path) -> tuple[int, float | None]:
    """Videos of a run without workers, and when the first one would be tracked."""
    config = TrackConfig(
        input=root,
        output=str(output),
        weights=str(weights),
        cluster=ClusterConfig(workers=0),
        mlflow=MlflowConfig(enabled=False),
    )
    begun: list[float] = []

    def done_at_once(segments: Iterable[Segment], *_: object) -> Iterator[SegmentResult]:
        for segment in segments:
            if not begun:
                begun.append(time.perf_counter())
            yield SegmentResult(segment.video_id, "ok", "")

    settings, _ = worker_settings(config)
    with patch.object(run, "run_in_process", done_at_once):
        summary = run.track_archive(
            config,
            find_files(root, str(output)),
            settings,
            None,
            StopRequest(),
            Console(quiet=True),
            lambda text: None,
        )
    return summary.done, begun[0] if begun else None


def _finish(output: Path) -> None:
    """Make a row in `videos` for each file of the manifest. Its name alone counts."""
    videos = output / "videos"
    videos.mkdir(parents=True)
    row = output / "row.parquet"
    row.write_bytes(b"PAR1")
    for batch in pq.ParquetFile(output / "manifest" / "manifest.parquet").iter_batches(
        columns=["video_id"]
    ):
        for video_id in batch.column(0).to_pylist():
            _linked(row, videos / f"{video_id}.parquet")


def _link(clip: Path, root: Path, count: int) -> None:
    for number in range(count):
        folder = root / f"camera {number // _FOLDER:04}"
        if number % _FOLDER == 0:
            folder.mkdir(parents=True)
        _linked(clip, folder / f"{number % _FOLDER:04}.mp4")


def _linked(source: Path, target: Path) -> None:
    """Link a file; copy it where it has as many links as a disk allows."""
    try:
        os.link(source, target)
    except OSError:
        target.write_bytes(source.read_bytes())


@contextmanager
def _store() -> Iterator[Any]:
    """An S3 server that the environment leads to; yields a client of it."""
    with s3_server() as url:
        variables = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        with patch.dict(os.environ, variables):
            yield s3_client(url)


def _upload(client: Any, clip: Path, count: int) -> str:
    bucket = f"archive-{count}"
    client.create_bucket(Bucket=bucket)
    data = clip.read_bytes()
    for number in range(count):
        key = f"2024/camera {number // _FOLDER:04}/{number % _FOLDER:04}.mp4"
        client.put_object(Bucket=bucket, Key=key, Body=data)
    return f"s3://{bucket}/2024"
