"""A model of the time that a long recording takes, tracked in windows on some workers.

Workers take one window after the other, so the last round decides. The worker that finishes the
last window joins all of them, while the others have nothing to do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recording:
    """A long video, and how it is split.

    Attributes:
        seconds: Length.
        fps: Frames a second.
        window_s: Shortest length of a window in seconds of video, as `split.seconds`.
        overlap_s: Seconds of video that two windows share.
    """

    seconds: float
    fps: float
    window_s: float
    overlap_s: float

    @property
    def frames(self) -> float:
        """Frames of the video."""
        return self.seconds * self.fps

    @property
    def windows(self) -> int:
        """Windows of the video: as many of at least `window_s` as it holds."""
        return max(1, int(self.seconds // self.window_s))


@dataclass(frozen=True, slots=True)
class Costs:
    """What one worker needs.

    Attributes:
        frames_s: Frames that it tracks in a second.
        join_window_s, join_frame_s: Seconds of joining for each window and each frame.
    """

    frames_s: float
    join_window_s: float
    join_frame_s: float


@dataclass(frozen=True, slots=True)
class Finish:
    """When a recording is done.

    Attributes:
        workers: Number of workers.
        windows: Number of windows.
        rounds: Windows that one worker tracks, one after the other.
        seconds: From the start to the last row.
        joining_s: Those of them in which one worker joins the windows.
        speed_up: Seconds of one worker in one pass without windows, divided by `seconds`.
    """

    workers: int
    windows: int
    rounds: int
    seconds: float
    joining_s: float
    speed_up: float


def finish(recording: Recording, costs: Costs, workers: int) -> Finish:
    """When a recording is done that is tracked in windows.

    Workers do not hinder each other. Each window counts with its overlap, the first one too.

    Args:
        recording: The recording, at least two windows long.
        costs: Of one worker.
        workers: Their number, at least 1.
    """
    windows = recording.windows
    rounds = math.ceil(windows / workers)
    window_s = recording.seconds / windows + recording.overlap_s
    joining_s = windows * costs.join_window_s + recording.frames * costs.join_frame_s
    seconds = rounds * window_s * recording.fps / costs.frames_s + joining_s
    one_pass_s = recording.frames / costs.frames_s
    return Finish(workers, windows, rounds, seconds, joining_s, one_pass_s / seconds)
