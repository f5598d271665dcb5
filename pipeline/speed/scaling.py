"""Where a cluster of GPUs saturates, from the rates that the bench has measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.speed.config import ScalingConfig
from pipeline.speed.schedule import DRIVER, STORE, Capacity, Rates, capacity, efficiency, saturation

GPUS = (10, 100, 1000)
# Requests of a run to a bucket, counted at an S3 server (tests/pipeline/speed/test_requests.py):
# header, identity and ledger of a video, its tables and its row. A file is read in blocks.
REQUESTS_VIDEO = 16
BLOCK_BYTES = 4 * 2**20
_VIDEOS_GPU = 100  # videos of a run for each GPU, whose lengths are drawn
_SPREAD = 0.8  # of the logarithm of their lengths
_SEED = 0


class NotMeasured(ValueError):
    """A rate that the model needs is not in the bench's record; the message says which."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """The answer of the model.

    Attributes:
        rates: All it was computed from.
        clusters: By number of GPUs.
        whole_run: Share of the time of a whole run in which a GPU works, by number of GPUs. The
            rest are the driver's hand-outs and the end, when some have nothing left.
        ends: Number of GPUs with which the store, and the driver, is used up.
    """

    rates: Rates
    clusters: Sequence[Capacity]
    whole_run: Mapping[int, float]
    ends: Mapping[str, float]


def scaling(measures: Mapping[str, Any], config: ScalingConfig) -> Scaling:
    """Compute it.

    Args:
        measures: Of the record `bench.json`.
        config: Its assumptions.

    Raises:
        NotMeasured: The measure `job` is not in the record.
    """
    if "job" not in measures:
        raise NotMeasured("scaling needs the measure job; add it: measures=[job,scaling]")
    job = measures["job"]
    decoding = [r["frames"] / r["core_s"] for r in job["readings"]["decode alone"]]
    rows = job["facts"]["rows a second through the driver"]
    seconds = 60 * config.video_minutes
    rates = Rates(
        gpu_frames_s=config.gpu_frames_s,
        decode_frames_s=float(np.median(decoding)),
        gpu_cores=config.gpu_cores,
        driver_videos_s=rows["median"],
        store_requests_s=config.store_requests_s,
        video_frames=seconds * config.video_fps,
        video_requests=requests(seconds * config.video_mbit * 1e6 / 8),
    )
    random = np.random.default_rng(_SEED)
    # Lengths whose logarithm is normal: most are short, a few are very long.
    shapes = random.lognormal(-(_SPREAD**2) / 2, _SPREAD, _VIDEOS_GPU * max(GPUS))
    frames = (shapes * rates.video_frames).tolist()
    return Scaling(
        rates,
        [capacity(rates, n) for n in GPUS],
        {n: efficiency(rates, n, frames[: _VIDEOS_GPU * n]) for n in GPUS},
        saturation(rates),
    )


def requests(video_bytes: float) -> float:
    """Requests to the store for a video of this size."""
    return REQUESTS_VIDEO + math.ceil(video_bytes / BLOCK_BYTES)


def lines(found: Scaling) -> list[str]:
    """What the model says, in sentences."""
    r = found.rates
    said = [
        f"a GPU of {r.gpu_frames_s:,.0f} frames/s wants {r.cores_wanted:.1f} cores that decode "
        f"{r.decode_frames_s:,.0f} frames/s each; it has {r.gpu_cores:g}, so it does "
        f"{r.one_gpu:,.0f} frames/s",
        f"a video of {r.video_frames:,.0f} frames makes {r.video_requests:,.0f} requests to the "
        f"store and one row of the driver, which does {r.driver_videos_s:,.0f} a second",
    ]
    for part in (STORE, DRIVER):
        said.append(f"{part} are used up by {found.ends[part]:,.0f} GPUs")
    return said
