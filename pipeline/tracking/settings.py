"""The settings of workers, made from those of the job, and which of them decide results."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from model.track.checkpoint import CheckpointError, file_sha256, read_metadata
from pipeline.inference.runtime import check_runtime
from pipeline.storage.run_record import Plain, config_hash
from pipeline.tracking.attempts import new_run
from pipeline.tracking.config import OnlyConfig, TrackConfig
from pipeline.tracking.track_video import TrackSettings, local_weights
from pipeline.trust.model import find_trust


def worker_settings(config: TrackConfig) -> tuple[TrackSettings, dict[str, Plain]]:
    """Settings of the workers, and the settings that decide results, with effective thresholds.

    Raises:
        RuntimeUnavailable: The runtime of the settings is not installed.
        CheckpointError: The weights cannot be used.
        TrustError: The model of trust beside the weights cannot be read.
        StorageError: The weights cannot be read.
    """
    check_runtime(config.model.runtime)
    weights = config.weights if "://" in config.weights else str(Path(config.weights).absolute())
    with local_weights(weights) as path:
        model, sha256 = read_metadata(path).model, file_sha256(path)
    given = asdict(config.tracker)
    effective = {k: getattr(model, k) if value is None else value for k, value in given.items()}
    trust = find_trust(weights, sha256, effective)
    # As a float, because 10 and 10.0 are one rate and must have one hash.
    fps = None if config.sample.fps is None else float(config.sample.fps)
    deciding: dict[str, Plain] = {
        "weights": sha256,
        "low_quality_below": config.low_quality_below,
        **{f"tracker.{name}": value for name, value in effective.items()},
        "trust": trust.model.sha256 if trust.model else None,
        "sample.fps": fps,
        "still.skip": config.still.skip,
        "reid.max_gap_s": float(config.reid.max_gap_s),
    }
    if config.split.mode in ("auto", "parallel"):
        # Modes `video` and `resume` give the same rows; `parallel` has seams.
        deciding |= {
            "split.mode": config.split.mode,
            "split.seconds": float(config.split.seconds),
            "split.overlap_s": float(config.split.overlap_s),
        }
    deciding |= _given(config.only)
    unknown = sorted(set(config.only.classes) - set(model.classes))
    if unknown:
        raise CheckpointError(
            f"only.classes: {config.weights} has no class {', '.join(unknown)}; it has "
            f"{', '.join(model.classes)}"
        )
    if config.model.precision == "fast":  # exact results are those of every runtime
        deciding["model.precision"] = "fast"
    settings = TrackSettings(
        weights=weights,
        output=config.output.rstrip("/"),
        model_sha256=sha256,
        config_hash=config_hash(deciding),
        window=config.decode.window,
        runtime=config.model.runtime,
        precision=config.model.precision,
        queue_size=config.decode.queue_size,
        low_quality_below=config.low_quality_below,
        sample_fps=fps,
        skip_still=config.still.skip == "auto",
        only=config.only,
        split_seconds=float(config.split.seconds),
        overlap_s=float(config.split.overlap_s),
        max_gap_s=float(config.reid.max_gap_s),
        trust=trust,
        limits=config.limits,
        run=new_run(),
        in_process=config.cluster.workers == 0,
        **effective,
    )
    return settings, deciding


def _given(only: OnlyConfig) -> dict[str, Plain]:
    """The settings of what is tracked that are not the defaults, as plain values."""
    given: dict[str, Plain] = {}
    for name, default in asdict(OnlyConfig()).items():
        value = getattr(only, name)
        if value != default:
            text = name in ("region", "classes")
            given[f"only.{name}"] = json.dumps(value) if text else float(value)
    return given
