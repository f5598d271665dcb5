"""What a frame and a video take, from the readings of a trial, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student_t

from pipeline.planning.asked import Chunk
from pipeline.planning.trial import Reading

Floats = npt.NDArray[np.float64]

_CONFIDENCE = 0.9


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of a worker and bytes of output.

    Attributes:
        pixels, frame_s: Sizes of pictures that were measured, ascending, (S,), and the seconds that
            a frame of each takes a worker, (S,).
        video_s: Seconds more that a video takes, however short.
        frame_bytes, video_bytes: Bytes of tables of a frame, and of a video without frames; None
            where they are not known.
    """

    pixels: Floats
    frame_s: Floats
    video_s: float = 0.0
    frame_bytes: float | None = None
    video_bytes: float | None = None

    @classmethod
    def given(
        cls, rate: float, frame_bytes: float | None = None, video_bytes: float | None = None
    ) -> Costs:
        """Costs at a rate in frames a second."""
        one = np.ones(1)
        return cls(one, one / rate, 0.0, frame_bytes, video_bytes)

    @classmethod
    def measured(cls, readings: Sequence[Reading]) -> Costs:
        """Costs from at least one reading."""
        pixels = np.unique([r.pixels for r in readings]).astype(np.float64)
        frame_s = []
        for size in pixels:
            same = [r for r in readings if r.pixels == size]
            frame_s.append(sum(r.seconds for r in same) / sum(r.frames for r in same))
        # Some stretches begin between two key frames, which takes longer than a start does.
        entry_s = min(r.entry_s for r in readings)
        return cls(
            pixels,
            np.array(frame_s),
            entry_s,
            float(np.mean([r.frame_bytes for r in readings])),
            float(np.mean([r.video_bytes for r in readings])),
        )

    def seconds(self, chunk: Chunk) -> Floats:
        """Seconds of a worker for each piece of work, (N,).

        A picture of another size costs what the nearest measured one does, by the logarithm of
        its pixels.
        """
        frames, pixels = (np.frombuffer(a, np.float64) for a in (chunk.frames, chunk.pixels))
        between = np.sqrt(self.pixels[1:] * self.pixels[:-1])
        return frames * self.frame_s[np.searchsorted(between, pixels)] + self.video_s


def spread(readings: Sequence[Reading], chunks: Sequence[Chunk]) -> float | None:
    """Factor by which the work of a run may be more or less, with 90 % confidence.

    By the jackknife: the work is computed without each reading in turn. It says how much stretches
    differ. It does not say whether the machine has other work at another time.

    Returns:
        The factor, at least 1; None for fewer than two readings.
    """
    count = len(readings)
    if count < 2:
        return None
    logs = np.array(
        [
            math.log(work(Costs.measured([*readings[:n], *readings[n + 1 :]]), chunks))
            for n in range(count)
        ]
    )
    error = math.sqrt((count - 1) / count * float(((logs - logs.mean()) ** 2).sum()))
    quantile: Any = student_t.ppf((1 + _CONFIDENCE) / 2, count - 1)
    return math.exp(error * float(quantile))


def work(costs: Costs, chunks: Sequence[Chunk]) -> float:
    """Seconds of all workers together."""
    return float(sum(costs.seconds(chunk).sum() for chunk in chunks))
