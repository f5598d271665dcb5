"""A model of the schedule of a run on many GPUs: what a further GPU still adds.

A run needs four things for a frame: time of a GPU, time of a core that decodes, a share of the
requests that its video makes to the store, and a share of the driver's time, which hands out one
video after the other. GPUs and their cores grow with the cluster, the store and the driver do not.
The first that is used up is the bottleneck.

`capacity` is the rate in the middle of a run. `finish` plays a whole run of given videos, with its
end, in which some GPUs have nothing left to do.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

MODEL, DECODE, STORE, DRIVER = "GPUs", "decode cores", "requests to the store", "rows of the driver"


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates of the parts of a run.

    Attributes:
        gpu_frames_s: Frames a second that one GPU encodes and steps.
        decode_frames_s: Frames a second that one core decodes.
        gpu_cores: Cores that decode for one GPU.
        driver_videos_s: Videos a second that the driver hands out and takes back.
        store_requests_s: Requests a second that the store answers.
        video_frames: Frames of a video, mean.
        video_requests: Requests to the store for a video, reading and writing.
    """

    gpu_frames_s: float
    decode_frames_s: float
    gpu_cores: float
    driver_videos_s: float
    store_requests_s: float
    video_frames: float
    video_requests: float

    @property
    def one_gpu(self) -> float:
        """Frames a second of one GPU with its cores."""
        return min(self.gpu_frames_s, self.gpu_cores * self.decode_frames_s)

    @property
    def cores_wanted(self) -> float:
        """Cores that have to decode for one GPU, so that it never waits."""
        return self.gpu_frames_s / self.decode_frames_s


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a cluster does in the middle of a run.

    Attributes:
        gpus: Number of GPUs.
        frames_s: Frames a second of the cluster.
        limits: Frames a second that each part alone allows.
        requests_s: Requests a second to the store at that rate.
        videos_s: Videos a second through the driver.
    """

    gpus: int
    frames_s: float
    limits: dict[str, float]
    requests_s: float
    videos_s: float

    @property
    def bottleneck(self) -> str:
        """The part that allows the least."""
        return min(self.limits, key=lambda part: self.limits[part])

    @property
    def use(self) -> dict[str, float]:
        """Share of each part that is in use."""
        return {part: self.frames_s / limit for part, limit in self.limits.items()}


def capacity(rates: Rates, gpus: int) -> Capacity:
    """What a cluster of so many GPUs does."""
    limits = {
        MODEL: gpus * rates.gpu_frames_s,
        DECODE: gpus * rates.gpu_cores * rates.decode_frames_s,
        STORE: rates.store_requests_s * rates.video_frames / rates.video_requests,
        DRIVER: rates.driver_videos_s * rates.video_frames,
    }
    frames_s = min(limits.values())
    videos_s = frames_s / rates.video_frames
    return Capacity(gpus, frames_s, limits, videos_s * rates.video_requests, videos_s)


def saturation(rates: Rates) -> dict[str, float]:
    """The number of GPUs with which the store, and the driver, is used up."""
    videos_s = rates.one_gpu / rates.video_frames
    return {
        STORE: rates.store_requests_s / (videos_s * rates.video_requests),
        DRIVER: rates.driver_videos_s / videos_s,
    }


def finish(video_s: Sequence[float], workers: int, hand_out_s: float = 0.0) -> float:
    """Seconds until the last video is done, the longest handed out first.

    A worker that has nothing to do asks for the next video. The driver answers one at a time.

    Args:
        video_s: Seconds that each video takes a worker.
        workers: Number of workers, at least 1.
        hand_out_s: Seconds of the driver for a video.
    """
    free = [0.0] * workers
    driver = 0.0
    for seconds in sorted(video_s, reverse=True):
        driver = max(driver, heapq.heappop(free)) + hand_out_s
        heapq.heappush(free, driver + seconds)
    return max(free)


def efficiency(rates: Rates, gpus: int, video_frames: Sequence[float]) -> float:
    """Share of the time of a run of these videos in which a GPU works, 1 if none ever waits.

    Args:
        rates: As measured; `video_frames` of them is not used.
        gpus: Number of GPUs.
        video_frames: Frames of each video.
    """
    if not video_frames:
        return 1.0
    seconds = [frames / rates.one_gpu for frames in video_frames]
    whole = finish(seconds, gpus, 1 / rates.driver_videos_s)
    return math.fsum(seconds) / (gpus * whole)
