"""Merge the tables of finished videos into few large files: ``vsdmot compact /data/tracks``.

Exit codes: 0 done; 1 failed, or a video's tables are damaged and were left as they are; 2 a bad
setting, or a folder that cannot be compacted; 4 stopped by SIGINT or SIGTERM. After 1 and 4 the
same command goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jobs.cli import (
    EXIT_BAD_CONFIG,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_STOPPED,
    console,
    fail,
    load_config,
    print_config,
    warn,
)
from pipeline.compaction.config import CompactConfig

if TYPE_CHECKING:
    from pipeline.runtime.stop import StopRequest


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(CompactConfig, argv)
    print_config(console, config)
    # Imported after the settings are checked, because pyarrow takes a second to import.
    from pipeline.compaction.run import CompactionRefused
    from pipeline.runtime.stop import Stopped, StopRequest
    from pipeline.storage.errors import StorageError

    stop = StopRequest()
    try:
        with stop.listening():
            return run(config, stop)
    except CompactionRefused as error:
        fail(str(error), EXIT_BAD_CONFIG)
    except StorageError as error:
        fail(str(error), EXIT_FAILED)
    except Stopped as stopped:
        fail(f"stopped by {stopped}; run the same command again to go on", EXIT_STOPPED)


def run(config: CompactConfig, stop: StopRequest) -> int:
    """Compact the folder and print what was done; returns the exit code.

    Raises:
        CompactionRefused: The folder cannot be compacted, or another compaction has taken over.
        StorageError: A file cannot be read or written.
        Stopped: A signal ended the job.
    """
    from pipeline.compaction.run import compact
    from pipeline.tracking.summary import query_lines

    columns = (
        TextColumn("merging"), BarColumn(), MofNCompleteColumn(), TextColumn("videos"),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("merging", total=None)
        done = compact(
            config,
            stop,
            found=lambda count: progress.update(task, total=count),
            advance=lambda count: progress.advance(task, count),
            say=lambda text: console.print(text, soft_wrap=True, highlight=False, markup=False),
        )
    for video_id, reason in done.skipped.items():
        warn(f"{video_id}: {reason}; it was left as it is. Remove its row in videos/, track again")
    rows = ", ".join(f"{count:,} {table}" for table, count in done.rows.items())
    console.print(
        f"{done.videos:,} videos merged into {done.sets:,} sets of files ({rows} rows); "
        f"{done.sets_now:,} sets now; {done.removed:,} files removed",
        soft_wrap=True, highlight=False,
    )  # fmt: skip
    for line in query_lines(config.output):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    return EXIT_FAILED if done.skipped else EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
