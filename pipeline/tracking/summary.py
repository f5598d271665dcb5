"""Summary of a run: counts results and prints them as a table at the end."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from pipeline.storage.compacted import MERGED
from pipeline.storage.secrets import mask_secrets

if TYPE_CHECKING:
    from pipeline.tracking.worker import SegmentResult

STAGES = ("decode", "encode", "step", "write")


@dataclass(slots=True)
class RunSummary:
    """Counts and seconds of one run.

    Attributes:
        found: Files found in the archive.
        whole: Whether the whole archive was gone through.
        skipped: Videos that earlier runs tracked or made dead letters of.
        dead_headers, dead_videos: Dead letters of this run, for headers and while tracking.
        dead_before: Dead letters among the skipped.
        done, partial: Videos tracked by this run, and those of them that are not whole.
        ways: Videos by the mode in which they are tracked.
        windows: Windows tracked apart, without the last one of each video.
        frames, frames_encoded: Frames read, and those of them that were encoded.
        unread_files, unread_videos: Those on which storage failed before and while they were
            tracked; the next run tries them again.
        planned, finished: Videos that this run had to track, and those that have a result.
        seconds: Seconds of the workers by stage. "decode" is how long the model waited for frames.
        decode_busy_s: Seconds in which decode threads worked, in parallel to the model.
        wall_s: Seconds of the tracking, start of the workers included.
    """

    found: int = 0
    whole: bool = False
    skipped: int = 0
    dead_headers: int = 0
    dead_videos: int = 0
    dead_before: int = 0
    done: int = 0
    partial: int = 0
    ways: Counter[str] = field(default_factory=Counter)
    windows: int = 0
    unread_files: int = 0
    unread_videos: int = 0
    planned: int = 0
    finished: int = 0
    frames: int = 0
    frames_encoded: int = 0
    video_s: float = 0.0
    num_tracks: int = 0
    decode_busy_s: float = 0.0
    wall_s: float = 0.0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def add(self, result: SegmentResult) -> None:
        """Count one result."""
        self.finished += 1
        if result.outcome == "dead":
            self.dead_videos += 1
            return
        if result.outcome == "unread":
            self.unread_videos += 1
            return
        self.done += 1
        self.partial += result.outcome == "partial"
        self.frames += result.frames
        self.frames_encoded += result.frames_encoded
        self.video_s += result.video_s
        self.num_tracks += result.num_tracks
        self.decode_busy_s += result.decode_busy_s
        self.seconds["decode"] += result.decode_wait_s
        self.seconds["encode"] += result.encode_s
        self.seconds["step"] += result.step_s
        self.seconds["write"] += result.write_s

    @property
    def dead(self) -> int:
        """Dead letters of this run."""
        return self.dead_headers + self.dead_videos

    @property
    def unread(self) -> int:
        """Files on which storage failed."""
        return self.unread_files + self.unread_videos

    @property
    def left(self) -> int:
        """Videos without a result, if the run ended early."""
        return max(0, self.planned - self.finished)

    @property
    def frames_per_second(self) -> float:
        """Frames per second of the whole run."""
        return self.frames / self.wall_s if self.wall_s else 0.0

    @property
    def times_real_time(self) -> float:
        """Seconds of footage tracked per second."""
        return self.video_s / self.wall_s if self.wall_s else 0.0

    def metrics(self) -> dict[str, float]:
        """Figures for MLflow."""
        return {
            "videos_done": self.done,
            "videos_partial": self.partial,
            "videos_skipped": self.skipped,
            "dead_letters": self.dead,
            "frames": self.frames,
            "frames_encoded": self.frames_encoded,
            "tracks": self.num_tracks,
            "frames_per_second": self.frames_per_second,
            "times_real_time": self.times_real_time,
            "wall_s": self.wall_s,
            "decode_busy_s": self.decode_busy_s,
            **{f"{stage}_s": value for stage, value in self.seconds.items()},
        }

    def table(self) -> Table:
        """The closing table."""
        table = Table(title="tracked", show_header=False, title_justify="left", pad_edge=False)
        table.add_column(no_wrap=True)
        table.add_column()
        done = f"{self.done}" + (f" ({self.partial} partial)" if self.partial else "")
        so_far = "" if self.whole else " so far"
        table.add_row("videos done", f"{done} of {self.found} found{so_far}")
        table.add_row("skipped, done before", str(self.skipped))
        before = f" (and {self.dead_before} before)" if self.dead_before else ""
        table.add_row("dead letters", f"{self.dead}{before}")
        if self.unread:
            table.add_row("not read, storage failed", f"{self.unread}: run again")
        if self.left:
            table.add_row("left", f"{self.left}: run again")
        if set(self.ways) - {"video"}:
            ways = ", ".join(f"{count} {mode}" for mode, count in sorted(self.ways.items()))
            table.add_row("split.mode", ways)
        table.add_row("frames, tracks", f"{self.frames}, {self.num_tracks}")
        if self.frames_encoded < self.frames:
            share = 100 * self.frames_encoded / self.frames
            table.add_row("frames encoded", f"{share:.1f} %")
        table.add_row(
            "speed",
            f"{self.frames_per_second:.1f} frames/s, {self.times_real_time:.1f} x real time, "
            f"{self.wall_s:.0f} s",
        )
        total = sum(self.seconds.values())
        if total:
            shares = (f"{stage} {100 * s / total:.0f} %" for stage, s in self.seconds.items())
            table.add_row("where time went", ", ".join(shares))
            table.add_row("", f"decode is the wait; decoders ran {self.decode_busy_s:.1f} s beside")
        return table


def closing_lines(output: str, dead_letters: bool) -> list[str]:
    """The folder of the results, and three example queries."""
    root = mask_secrets(output).rstrip("/")
    tables = "tracks/ frames/ track_summary/ videos/ dead_letters/ manifest/"
    first = f"results in {root}: {tables} run.json"
    return [first, *query_lines(output, dead_letters)]


def query_lines(output: str, dead_letters: bool = False) -> list[str]:
    """Three example queries, which read the tables compacted or not.

    Args:
        output: The output of vsdmot track.
        dead_letters: Whether one of them shows the dead letters.
    """
    root = mask_secrets(output).rstrip("/")
    queries = [
        ("videos", ".project('relative_path, num_tracks, quality_mean').order('quality_mean')"),
        (
            "track_summary",
            ".project('video_id, track_id, first_s, length_s, trust').order('length_s desc')",
        ),
        ("dead_letters", ".project('relative_path, kind, message')")
        if dead_letters
        else ("frames", ".project('video_id, time_s, quality, num_tracks').order('quality')"),
    ]
    lines = []
    for table, query in queries:
        code = f"import duckdb; duckdb.read_parquet({_files(root, table)}){query}.show()"
        if table in MERGED:
            code = f"from pipeline.storage.reading import table_files; {code}"
        lines.append(f'{_python()} -c "{code}"')
    return lines


def _files(root: str, table: str) -> str:
    """Python code for the files of a table; `table_files` also finds those that are compacted."""
    if table in MERGED:
        return f"table_files({root!r}, {table!r})"
    return repr(f"{root}/{table}/*.parquet")


def _python() -> str:
    """Path of this interpreter, relative if it is below the working directory."""
    path = Path(sys.executable)
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
