"""Measure one ability of a student: `vsdmot measure what=…`; the settings list the abilities."""

import sys
from collections.abc import Sequence

from jobs.cli import EXIT_FAILED, console, fail, load_config, print_config
from jobs.measure_settings import MeasureConfig


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(MeasureConfig, argv)
    print_config(console, config)
    # Imported after the settings are checked, because torch takes seconds to import.
    import torch

    from jobs.measure_cuts import run_cuts
    from jobs.measure_degraded import run_degraded
    from jobs.measure_detection import run_detection
    from jobs.measure_long import run_long
    from jobs.measure_robustness import run_robustness
    from jobs.measure_still import run_still
    from jobs.measure_trust import run_trust
    from model.allocator import keep_large_blocks
    from model.teach.teacher import TeacherError
    from model.track.checkpoint import CheckpointError
    from pipeline.datasets.mot import MotError
    from pipeline.datasets.still_images import StillsError
    from pipeline.storage.errors import StorageError
    from pipeline.trackers.detectors import DetectorError
    from pipeline.trackers.spec import SpecError

    torch.set_num_threads(config.threads)
    keep_large_blocks()
    try:
        runs = {
            "detection": run_detection,
            "still": run_still,
            "cuts": run_cuts,
            "degraded": run_robustness,
            "split": run_long,
            "reid": run_long,
            "evidence": run_long,
            "looks": run_long,
            "trust": run_trust,
        }
        return runs.get(config.what, run_degraded)(config)
    except (
        CheckpointError,
        DetectorError,
        MotError,
        SpecError,
        StillsError,
        StorageError,
        TeacherError,
    ) as error:
        fail(str(error), EXIT_FAILED)


if __name__ == "__main__":
    sys.exit(main())
