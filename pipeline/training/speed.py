"""Measures the speed of training on labelled clips, and the share of each part of a step."""

import cProfile
import pstats
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from model.learn import matching
from model.learn.clip_batch import ClipBatch
from model.learn.track_loss import track_terms
from model.learn.training import Trainer
from model.track.tracker import Tracker

# In the order of a step. None of these functions calls another one.
_PARTS: dict[str, Callable[..., Any]] = {
    "forward": Tracker.encode,
    "dense assignment": matching.assign_dense,
    "matching": matching.match,
    "tracks": track_terms,
    "backward": torch.Tensor.backward,
}
LOADER, REST = "waiting for data", "losses, optimizer, average"
_WARM = 3  # first steps, which are slow: kernels are chosen, loaders start


@dataclass(frozen=True, slots=True)
class TrainSpeed:
    """Speed of training.

    Attributes:
        frames_per_second: over whole steps, waiting for data included.
        shares: share of each part in the time of a step; their sum is 1.
    """

    frames_per_second: float
    shares: dict[str, float]


def measure_training(trainer: Trainer, batches: Iterable[ClipBatch], steps: int) -> TrainSpeed:
    """Train for some steps and measure their parts. This changes the trainer.

    Args:
        trainer: trains a tracker on labelled clips.
        batches: an endless stream.
        steps: number of steps that are measured, after a few to warm up.
    """
    running = trainer.run(batches)
    for _ in range(_WARM):
        next(running)
    profile = cProfile.Profile()
    start = time.perf_counter()
    done = profile.runcall(lambda: [next(running) for _ in range(steps)])
    seconds = time.perf_counter() - start
    frames = sum(progress.frames for progress in done)
    waited = sum(progress.data_seconds for progress in done)
    shares = {LOADER: waited / seconds} | _shares(pstats.Stats(profile), seconds)
    return TrainSpeed(frames / seconds, shares | {REST: 1 - sum(shares.values())})


def _shares(stats: pstats.Stats, seconds: float) -> dict[str, float]:
    entries: dict[tuple[str, int, str], tuple[Any, ...]] = stats.stats  # type: ignore[attr-defined]
    shares = {}
    for part, function in _PARTS.items():
        # The profiler knows a decorated function by its inner function.
        code = getattr(function, "__wrapped__", function).__code__
        entry = entries.get((code.co_filename, code.co_firstlineno, code.co_name))
        # The fourth number of an entry is the time in the function and in what it calls.
        shares[part] = entry[3] / seconds if entry else 0.0
    return shares
