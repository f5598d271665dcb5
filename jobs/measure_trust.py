"""`vsdmot measure trust`: fit the trust in tracks, and measure whether it is right."""

from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.progress import Progress
from rich.table import Table

from jobs.cli import console
from jobs.measure_output import say_left_out, write_measured
from jobs.measure_settings import MeasureConfig
from model.track.checkpoint import file_sha256
from pipeline.benchmark.trust.calibration import Calibration, calibration
from pipeline.benchmark.trust.fit import cross_validated, fit
from pipeline.benchmark.trust.passes import stretches, track_stretches
from pipeline.benchmark.trust.plot import reliability_plot
from pipeline.benchmark.trust.samples import (
    Samples,
    StretchTracks,
    samples,
    scores_of_best,
    stretch_tracks,
)
from pipeline.datasets.boxes import evaluated
from pipeline.datasets.mot import MotError, Sequence, find_sequences, read_sequence
from pipeline.degrade.conditions import conditions
from pipeline.inference.runtime import Runtime
from pipeline.storage.files import write_atomic
from pipeline.tracking.track_video import TrackSettings, open_runtime
from pipeline.trust.features import NAMES
from pipeline.trust.model import FoundTrust, TrustError, TrustModel, find_trust, trust_uri
from pipeline.video.errors import DecodeError
from pipeline.video.probe import ProbeError

_FRAMES = 60
_BEST = 0.8
_SCORE = NAMES.index("score")
_GROUPS = {"all": (False, True), "clean": (False,), "degraded": (True,)}


def run_trust(config: MeasureConfig) -> int:
    """Track, fit or measure, print, write `trust.parquet` and more; returns the exit code.

    Raises:
        CheckpointError: the student, or the model of trust, cannot be used.
        MotError: there is no sequence, or a video cannot be read.
        StorageError: the output cannot be read or written.
    """
    sequences, left_out = _sequences(config)
    opened = open_runtime(TrackSettings(config.weights, device=config.device))
    model = None if config.fit else _beside(config, opened.model)
    try:
        found = _tracked(config, opened.model, sequences)
    except (DecodeError, ProbeError) as error:
        raise MotError(f"data={config.data}: {error}") from error
    say_left_out(left_out)
    every = samples(found)
    if not len(every):
        raise MotError(f"data={config.data}: the student has no track in these sequences")
    if model is None:
        _fit(config, opened.model, every, found)
        chance = cross_validated(every)
        console.print("chances are those of models fitted to the other sequences", highlight=False)
    else:
        chance = model(every.features)
    known = np.isfinite(chance)
    if not known.all():
        console.print(
            f"{np.count_nonzero(~known)} tracks have no chance, because the other sequences have "
            "no right track or no wrong one",
            highlight=False,
        )
    groups = _calibrations(every[known], chance[known])
    rows: list[dict[str, Any]] = [_row(name, each) for name, each in groups.items()]
    console.print(calibration_table(rows))
    best = [] if model is None else _best_rows(found, model)
    if best:
        console.print(best_table(best))
    plot = f"{config.output.rstrip('/')}/trust.svg"
    write_atomic(plot, reliability_plot(groups))
    console.print(f"reliability plot: {plot}", soft_wrap=True, highlight=False)
    return write_measured(config, [*rows, *best], opened.runtime, left_out)


def _sequences(config: MeasureConfig) -> tuple[list[Sequence], dict[str, str]]:
    """Sequences with people to follow, and why others are left out."""
    left_out: dict[str, str] = {}
    kept = []
    for sequence in map(read_sequence, find_sequences(config.data)):
        if sequence.name in config.apart:
            continue
        if len(evaluated(sequence.gt)):
            kept.append(sequence)
        else:
            left_out[sequence.name] = f"{sequence.gt_file} holds no person to follow"
    if not kept:
        raise MotError(f"data={config.data}: no sequence has people to follow")
    return kept, left_out


def _tracked(
    config: MeasureConfig, model: Runtime, sequences: list[Sequence]
) -> list[StretchTracks]:
    shown = conditions(config.kinds, config.severities, (0,))
    wanted = stretches(sequences, shown, config.frames or _FRAMES)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("tracking", total=sum(each.frames for each in wanted))
        tracked = track_stretches(
            model,
            config.weights,
            wanted,
            config.output,
            lambda frames: progress.advance(task, frames),
        )
        return [stretch_tracks(each) for each in tracked]


def _thresholds(model: Runtime) -> dict[str, float]:
    names = ("birth_threshold", "keep_threshold", "miss_tolerance")
    return {name: getattr(model.config, name) for name in names}


def _fit(config: MeasureConfig, model: Runtime, every: Samples, found: list[StretchTracks]) -> None:
    """Fit the model of trust and write it."""
    degraded = sorted({one.name.partition(" ")[2] for one in found if one.degraded})
    fitted = {
        "tracks": dict(Counter(every.sequence.tolist())),
        "right": int(every.right.sum()),
        "degradations": degraded,
    }
    trust = fit(every, file_sha256(config.weights), _thresholds(model), fitted)
    write_atomic(config.fit, trust.encode())
    console.print(coefficient_table(trust))
    console.print(f"model of trust: {config.fit}", soft_wrap=True, highlight=False)


def _beside(config: MeasureConfig, model: Runtime) -> TrustModel:
    found: FoundTrust = find_trust(config.weights, file_sha256(config.weights), _thresholds(model))
    if found.model is None:
        raise TrustError(
            f"{found.reason}; make it with vsdmot measure what=trust "
            f"data=TRAINING_SEQUENCES fit={trust_uri(config.weights)}"
        )
    return found.model


def _calibrations(every: Samples, chance: np.ndarray) -> dict[str, Calibration]:
    found = {}
    for name, degraded in _GROUPS.items():
        chosen = np.isin(every.degraded, degraded)
        if chosen.any():
            found[name] = calibration(chance[chosen], every.right[chosen])
    return found


def _row(name: str, found: Calibration) -> dict[str, Any]:
    row = asdict(found)
    row["bins"] = found.bins.tolist()
    return {"group": name, **row}


def _best_rows(found: list[StretchTracks], model: TrustModel) -> list[dict[str, Any]]:
    """Scores of all tracks, and of the best by trust and by score, in each group."""
    rows = []
    for name, degraded in _GROUPS.items():
        chosen = [one for one in found if one.degraded in degraded]
        if not chosen:
            continue
        trust = [model(one.features) for one in chosen]
        score = [one.features[:, _SCORE] for one in chosen]
        for kept, values, share in (
            ("all", trust, 1.0),
            ("trust", trust, _BEST),
            ("score", score, _BEST),
        ):
            scores = scores_of_best(chosen, values, share)
            shown = {k: getattr(scores, k) for k in ("hota", "mota", "idf1", "id_switches")}
            shown |= {k: getattr(scores, k) for k in ("false_positives", "false_negatives")}
            rows.append({"group": name, "kept": kept, "share": share, **shown})
    return rows


def calibration_table(rows: list[dict[str, Any]]) -> Table:
    """Table of calibration by group of tracks."""
    table = Table("tracks", title="trust in tracks", title_justify="left")
    columns = ("number", "right", "expected error", "by chance", "Brier", "of the share", "area")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["group"],
            str(row["count"]),
            f"{100 * row['right']:.1f} %",
            f"{row['error']:.3f}",
            f"{row['error_by_chance']:.3f}",
            f"{row['brier']:.3f}",
            f"{row['brier_constant']:.3f}",
            f"{row['area']:.3f}",
        )
    return table


def best_table(rows: list[dict[str, Any]]) -> Table:
    """Table of scores with all tracks and with the best ones."""
    table = Table("sequences", "kept", title="the best tracks alone", title_justify="left")
    for column in ("HOTA", "MOTA", "IDF1", "switches", "false", "missed"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        kept = "all" if row["share"] == 1 else f"{100 * row['share']:.0f} % by {row['kept']}"
        table.add_row(
            row["group"],
            kept,
            *(f"{row[name]:.1f}" for name in ("hota", "mota", "idf1")),
            *(str(row[name]) for name in ("id_switches", "false_positives", "false_negatives")),
        )
    return table


def coefficient_table(model: TrustModel) -> Table:
    """Table of what each feature is worth, in logits for one standard deviation."""
    table = Table("feature", title="model of trust", title_justify="left")
    table.add_column("worth", justify="right")
    for name, value in zip(model.features, model.coefficients, strict=True):
        table.add_row(name, f"{value:+.2f}")
    return table
