"""Queries over the tables of many videos, before and after `vsdmot compact`, in DuckDB."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.compaction.config import CompactConfig
from pipeline.compaction.run import compact
from pipeline.runtime.stop import StopRequest
from pipeline.speed.one_core import MeasureError
from pipeline.speed.peak_memory import peak_memory
from pipeline.speed.queries.made_run import make_run
from pipeline.speed.readings import Measure, Reading, Spread, in_turns, ratio
from pipeline.storage.compacted import MERGED
from pipeline.storage.reading import table_files

SIDES = BEFORE, AFTER = "before", "after"
"""Before compaction and after it."""


@dataclass(frozen=True, slots=True)
class Query:
    """A query that an archive is for.

    Attributes:
        name: What it asks.
        table: The table that it reads, `{files}` in its SQL.
        sql: In DuckDB's dialect; `{video}` is the id of one video.
    """

    name: str
    table: str
    sql: str


QUERIES = (
    Query(
        "people per hour",
        "tracks",
        "SELECT hour, count(*) FROM (SELECT DISTINCT video_id, track_id, floor(time_s / 3600) "
        "AS hour FROM read_parquet({files})) GROUP BY hour ORDER BY hour",
    ),
    Query(
        "worst videos",
        "videos",
        "SELECT relative_path, quality_mean FROM read_parquet({files}) "
        "ORDER BY quality_mean, relative_path LIMIT 20",
    ),
    Query(
        "rows of one video",
        "tracks",
        "SELECT frame_index, track_id, x, y, w, h FROM read_parquet({files}) "
        "WHERE video_id = '{video}' ORDER BY frame_index, track_id",
    ),
    Query(
        "tracks longer than 10 s",
        "tracks",
        "SELECT count(*) FROM (SELECT max(time_s) - min(time_s) AS s FROM read_parquet({files}) "
        "GROUP BY video_id, track_id) WHERE s > 10",
    ),
)


def queries_measure(videos: int, repeats: int, seed: int = 0) -> Measure:
    """Time the queries over made tables, in turns on the folder before and after compaction.

    Each reading lists the files and opens them anew, so it holds all that a user waits for. The
    files are in the page cache of the system.

    Raises:
        MeasureError: DuckDB is not installed, or the answers differ.
        StorageError: The temporary folder cannot be written.
    """
    try:
        import duckdb
    except ImportError as error:
        raise MeasureError(
            f"{error}; queries need the extra: pip install 'vsdmot[report]'"
        ) from error
    with tempfile.TemporaryDirectory(prefix="vsdmot-queries-") as name:
        folders = {side: Path(name) / side for side in SIDES}
        made = make_run(folders[BEFORE], videos, seed)
        # Compaction removes names alone, so links are as good as copies.
        shutil.copytree(folders[BEFORE], folders[AFTER], copy_function=os.link)
        started = time.perf_counter()
        with peak_memory() as highest:
            base = highest[0]
            compact(CompactConfig(str(folders[AFTER]), keep_s=0), StopRequest())
        seconds = time.perf_counter() - started
        video = made.videos[len(made.videos) // 2]
        answers: dict[str, Any] = {}

        def ask(query: Query, side: str) -> Reading:
            wall, core = time.perf_counter(), time.process_time()
            files = table_files(str(folders[side]), query.table)
            with duckdb.connect() as connection:
                sql = query.sql.format(files=files, video=video)
                found = connection.execute(sql).fetchall()
            reading = Reading(1, time.perf_counter() - wall, time.process_time() - core)
            if answers.setdefault(query.name, found) != found:
                raise MeasureError(f"{query.name}: the answers before and after differ")
            return reading

        sides: dict[str, Callable[[], Reading]] = {
            f"{query.name}, {side}": partial(ask, query, side)
            for query in QUERIES
            for side in SIDES
        }
        readings = in_turns(sides, repeats)
        files = {side: _files(folder) for side, folder in folders.items()}
    times = {
        f"{name}, ms": round(1000 * Spread.of(r.wall_s for r in found).median, 1)
        for name, found in readings.items()
    }
    facts: dict[str, Any] = {
        **times,
        "rows of tracks, of frames": [made.tracks, made.frames],
        **{f"files {side}, MB, MB on disk": list(files[side]) for side in files},
        "compaction, s": seconds,
        "compaction, MB of memory at its peak": (highest[0] - base) / 1e6,
    }
    ratios = [
        ratio(readings, f"{query.name}, {AFTER}", f"{query.name}, {BEFORE}", "wall")
        for query in QUERIES
    ]
    return Measure(
        "queries over the tables in DuckDB, before and after vsdmot compact",
        f"{videos:,} made videos",
        ratios=ratios,
        facts=facts,
    )


def _files(folder: Path) -> tuple[int, float, float]:
    """Number of Parquet files in all tables, their megabytes, and those they take on the disk."""
    count, size, taken = 0, 0, 0
    for path in folder.rglob("*.parquet"):
        if set(path.relative_to(folder).parts) & set(MERGED):
            status = path.stat()
            count += 1
            size += status.st_size
            taken += 512 * status.st_blocks
    return count, size / 1e6, taken / 1e6
