"""A benchmark in MLflow: settings, the means as metrics, the files as artifacts."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.benchmark.results import DEGRADED, Results
from pipeline.degrade.conditions import CLEAN
from pipeline.runtime.mlflow_run import TrackingLog

_FIGURES = ("mota", "idf1", "ap50", "frames_per_second", "peak_memory_mb")


def log_results(
    log: TrackingLog, settings: Mapping[str, object], results: Results, files: Mapping[str, bytes]
) -> None:
    """Log a benchmark and end the run.

    Args:
        log: Open; closed here.
        settings: By dotted key.
        results: HOTA goes in for every condition, other figures for clean.
        files: By name: the rows, the table with its comparisons, the page with its figures.
    """
    log.params(settings)
    metrics = {}
    for tracker in results.trackers:
        plain = tracker.replace(":", "/").replace("+", "-")
        for condition in (*results.conditions, DEGRADED):
            if (found := results.estimate(tracker, condition)) is not None:
                metrics[f"{plain}/hota/{condition}"] = found.mean
        for figure in _FIGURES:
            if (found := results.estimate(tracker, CLEAN, figure)) is not None:
                metrics[f"{plain}/{figure}/clean"] = found.mean
    log.metrics(metrics, step=0)
    for name, content in files.items():
        log.file(name, content)
    log.close("FINISHED")
