"""Say what a run would do, take and cost: ``vsdmot plan /data/cams /data/tracks``.

Exit codes: 0 the run is possible; 1 the archive or the output cannot be reached, or storage fails
on some files; 2 a bad setting, or `vsdmot track` would refuse the run; 3 the run is possible, but
some inputs would be dead letters; 4 stopped by SIGINT or SIGTERM. Nothing is written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from jobs.cli import (
    EXIT_BAD_CONFIG,
    EXIT_DEAD_LETTERS,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_STOPPED,
    console,
    fail,
    load_config,
)
from pipeline.planning.config import PlanConfig
from pipeline.storage.errors import StorageError

if TYPE_CHECKING:
    from pipeline.runtime.stop import StopRequest


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(PlanConfig, argv)
    # Imported after the settings are checked, because torch takes seconds to import.
    from model.track.checkpoint import CheckpointError
    from pipeline.inference.runtime import RuntimeUnavailable
    from pipeline.planning.calibration import CalibrationError
    from pipeline.runtime.stop import ClusterError, Stopped, StopRequest
    from pipeline.storage.run_record import RunRefused
    from pipeline.tracking.memory_estimate import MemoryRefused

    stop = StopRequest()
    try:
        with stop.listening():
            return run(config, stop)
    except (CheckpointError, RunRefused, MemoryRefused, RuntimeUnavailable) as error:
        fail(str(error), EXIT_BAD_CONFIG)
    except (StorageError, ClusterError, CalibrationError) as error:
        fail(str(error), EXIT_FAILED)
    except Stopped as stopped:
        fail(f"stopped by {stopped}", EXIT_STOPPED)


def run(config: PlanConfig, stop: StopRequest) -> int:
    """Make the plan and print it; returns the exit code.

    Raises:
        StorageError, ClusterError, CheckpointError, RunRefused, MemoryRefused, RuntimeUnavailable,
            CalibrationError, Stopped: As of `make_plan`.
    """
    from pipeline.planning.make import make_plan
    from pipeline.planning.text import lines, table, values

    # What is under way goes beside the JSON, not into it.
    plan = make_plan(config, stop, Console(stderr=True) if config.json else console)
    if config.json:
        print(json.dumps(values(plan, config), indent=2))
    else:
        console.print(table(plan, config), markup=False)
        for line in lines(plan):
            console.print(line, soft_wrap=True, highlight=False, markup=False)
    if plan.asked.counts.unread:
        return EXIT_FAILED
    return EXIT_DEAD_LETTERS if plan.asked.dead_count else EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
