"""Track people in an archive of videos: ``vsdmot track /data/cams /data/tracks``.

Exit codes: 0 every video is tracked; 1 failed; 2 a bad setting, nothing was written; 3 done, but
some inputs are dead letters; 4 stopped by SIGINT or SIGTERM. After 1 and 4 the same command
resumes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from jobs.cli import (
    EXIT_BAD_CONFIG,
    EXIT_DEAD_LETTERS,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_STOPPED,
    console,
    fail,
    load_config,
    print_config,
    warn,
)
from model.settings import flat_settings
from pipeline.storage.errors import StorageError
from pipeline.storage.secrets import mask_secrets
from pipeline.tracking.config import TrackConfig

if TYPE_CHECKING:
    from pipeline.runtime.stop import StopRequest
    from pipeline.tracking.summary import RunSummary

_PAGE_AT_END = 20_000  # videos up to which the page is made without being asked for


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(TrackConfig, argv)
    print_config(console, config)
    # Imported after the settings are checked, because torch and Ray take seconds to import.
    from model.track.checkpoint import CheckpointError
    from pipeline.inference.runtime import RuntimeUnavailable
    from pipeline.runtime.stop import ClusterError, StalledError, Stopped, StopRequest
    from pipeline.storage.run_record import RunRefused
    from pipeline.tracking.memory_estimate import MemoryRefused

    stop = StopRequest()
    try:
        with stop.listening():
            return run(config, stop)
    except (CheckpointError, RunRefused, MemoryRefused, RuntimeUnavailable) as error:
        fail(str(error), EXIT_BAD_CONFIG)
    except (StorageError, StalledError, ClusterError) as error:
        fail(str(error), EXIT_FAILED)
    except Stopped as stopped:
        fail(f"stopped by {stopped}; run the same command again to resume", EXIT_STOPPED)


def run(config: TrackConfig, stop: StopRequest) -> int:
    """List the videos, track them, print a summary; returns the exit code.

    Raises:
        CheckpointError: The weights cannot be used.
        RuntimeUnavailable: The runtime that is asked for cannot be used.
        RunRefused: The output holds results of other settings.
        MemoryRefused: The actors need more memory than this machine has.
        StorageError: The archive or the output cannot be reached.
        StalledError: The run makes no progress.
        ClusterError: Ray cannot be used, or the connection was lost.
        Stopped: A signal ended the job before the first video.
    """
    from pipeline.archive.inputs import find_files
    from pipeline.runtime.mlflow_run import MlflowRun
    from pipeline.storage import files as storage
    from pipeline.storage.run_record import claim_output
    from pipeline.tracking.run import track_archive
    from pipeline.tracking.settings import worker_settings
    from pipeline.tracking.summary import closing_lines

    output = config.output.rstrip("/")
    with console.status("looking for videos"):
        files = find_files(config.input, output)
    stop.check()
    settings, deciding = worker_settings(config)
    if settings.trust.model is None:
        warn(f"the field trust of track_summary will be empty: {settings.trust.reason}")
    conditional = storage.creates_once(output)
    if not conditional:
        warn(
            f"{output} has no conditional writes: results stay correct, but if two runs write "
            "the same file, the later one overwrites it, so start only one"
        )
    settings = replace(settings, conditional=conditional)
    record = claim_output(output, config.job, deciding, asdict(config), conditional)
    log, status = None, "FAILED"
    if config.mlflow.enabled:
        log = MlflowRun(config.mlflow.uri, config.mlflow.experiment, warn)
        log.params(flat_settings(config) | deciding | {"config_hash": record["config_hash"]})
        log.file("run.json", storage.read_bytes(f"{output}/run.json"))
    try:
        summary = track_archive(config, files, settings, log, stop, console, warn)
        status = "KILLED" if stop.signal else "FAILED" if summary.unread else "FINISHED"
        if log is not None:
            log.metrics(summary.metrics(), step=summary.frames)
            log.file("summary.json", json.dumps(summary.metrics(), indent=2).encode())
    finally:
        if log is not None:
            log.close(status)
    console.print(summary.table())
    if log is not None and log.dropped:
        console.print(f"{log.dropped} entries of the MLflow log were lost", style="yellow")
    any_dead = bool(summary.dead or summary.dead_before)
    for line in closing_lines(output, any_dead):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    if config.report and stop.signal is None:
        _make_page(output, summary)
    if stop.signal is not None:
        others = "" if summary.whole else " of those found so far"
        warn(
            f"stopped by {stop.signal.name}: {summary.left} videos are left{others}; run the same "
            "command again to track them"
        )
        return EXIT_STOPPED
    if summary.unread or summary.left:
        return EXIT_FAILED
    return EXIT_DEAD_LETTERS if any_dead else EXIT_DONE


def _make_page(output: str, summary: RunSummary) -> None:
    """Write the page of the run. If it fails, the tables are whole all the same."""
    from pipeline.storage import files as storage

    if not summary.done and storage.exists(f"{output}/report/index.html"):
        return
    command = f"vsdmot report {mask_secrets(output)}"
    if summary.found > _PAGE_AT_END:
        console.print(f"no page yet, it would take minutes; make it with: {command}")
        return
    from pipeline.report.make import report_at_end
    from pipeline.report.run_tables import NoRunError

    try:
        with console.status("making the page"):
            lines = report_at_end(output).closing_lines()
    except (StorageError, NoRunError) as error:
        warn(f"no page: {error}; make it later with: {command}")
        return
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    sys.exit(main())
