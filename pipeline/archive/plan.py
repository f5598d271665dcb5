"""The plan: which videos are tracked in one pass, which in windows at the same time, longest first.

A mode is chosen for each video by its length and by the work beside it. `video` and `resume` give
the same rows; `parallel` may differ from them at its seams.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pipeline.video.info import VideoInfo
from pipeline.video.limits import frames_guessed

Mode = Literal["video", "resume", "parallel"]


@dataclass(frozen=True, slots=True)
class Segment:
    """What one worker tracks at a time: a video, or one window of it.

    Attributes:
        info: The video.
        mode: How the video is tracked: in one pass, in one pass that saves its state, or in
            windows at the same time.
        window: In mode `parallel` the number of the window, from 0, and how many there are.
    """

    info: VideoInfo
    mode: Mode = "video"
    window: tuple[int, int] | None = None

    @property
    def video_id(self) -> str:
        """Id of the video."""
        return self.info.video_id


@dataclass(frozen=True, slots=True)
class Split:
    """How modes are chosen.

    Attributes:
        mode: That of all videos, or "auto": chosen for each.
        seconds: Shortest length of a window, and time between saved states.
        workers: Workers that share the videos, for "auto".
        whole_videos: Whether videos are tracked from start to end. If not, none is cut into windows
            that are tracked at the same time.
    """

    mode: Mode | Literal["auto"] = "auto"
    seconds: float = 600.0
    workers: int = 1
    whole_videos: bool = True


@dataclass(frozen=True, slots=True)
class Way:
    """How one video is tracked, and why.

    Attributes:
        mode: The mode.
        windows: Windows in mode `parallel`, else 1.
        reason: Why, for the user.
    """

    mode: Mode
    windows: int
    reason: str


def plan(
    infos: Iterable[VideoInfo], split: Split, under_way: Mapping[str, Mode] | None = None
) -> tuple[list[Segment], dict[str, Way]]:
    """Segments of some videos, longest video first, and the way of each video by its id.

    A long video at the end would leave other workers idle. Videos of unknown length come first,
    because each of them may be the longest.

    Args:
        infos: Videos that are not done.
        split: How modes are chosen.
        under_way: Modes of the videos that an earlier run began, by id. They stay in that mode,
            because parts of one mode are of no use to the other.
    """
    videos = sorted(infos, key=_longest_first)
    share = sum(map(frames_guessed, videos)) / split.workers
    ways = {v.video_id: way_of(v, split, share, (under_way or {}).get(v.video_id)) for v in videos}
    segments = []
    for info in videos:
        way = ways[info.video_id]
        if way.mode == "parallel":
            windows = range(way.windows)
            segments += [Segment(info, way.mode, (index, way.windows)) for index in windows]
        else:
            segments.append(Segment(info, way.mode))
    return segments, ways


def way_of(info: VideoInfo, split: Split, fair_share: float, begun: Mode | None = None) -> Way:
    """How one video is tracked.

    Args:
        info: The video.
        split: How modes are chosen.
        fair_share: Frames of all videos divided by the number of workers.
        begun: Mode in which an earlier run began it; None if none did.
    """
    seconds, windows = length_s(info), window_count(info, split.seconds)
    if begun == "resume" and split.mode in ("auto", "parallel"):
        return Way("resume", 1, "begun so by an earlier run")
    if begun == "parallel" and split.mode == "auto" and windows > 1:
        return Way("parallel", windows, "begun so by an earlier run")
    if not split.whole_videos and split.mode in ("auto", "parallel"):
        return Way("resume", 1, "only a part of it is tracked")
    if split.mode == "parallel" and windows == 1:
        why = "its header tells no length" if seconds is None else "too short for two windows"
        return Way("resume", 1, why)
    if split.mode != "auto":
        return Way(
            split.mode, windows if split.mode == "parallel" else 1, f"split.mode={split.mode}"
        )
    if seconds is None:
        return Way("resume", 1, "its header tells no length")
    if windows == 1:
        return Way("video", 1, f"shorter than two windows of {split.seconds:g} s")
    if split.workers > 1 and frames_guessed(info) > fair_share:
        return Way("parallel", windows, "longer than the fair share of a worker")
    return Way("resume", 1, "long, but no longer than the fair share of a worker")


def window_count(info: VideoInfo, seconds: float) -> int:
    """Windows of a video in mode `parallel`: as many of at least so many seconds as it holds.

    It depends on the video and the settings alone, never on the cluster, so that windows of
    different runs fit together. It is 1 for a video of unknown length.
    """
    length = length_s(info)
    return 1 if length is None else max(1, int(length // seconds))


def length_s(info: VideoInfo) -> float | None:
    """Seconds of a video by its header, None if the header does not tell."""
    if info.duration_s is not None:
        return info.duration_s
    if info.frames_expected is not None and info.fps:
        return info.frames_expected / info.fps
    return None


def expected_frames(info: VideoInfo) -> int | None:
    """Number of frames by the header, else by duration and frame rate, else None."""
    if info.frames_expected is not None:
        return info.frames_expected
    if info.duration_s is not None and info.fps is not None:
        return round(info.duration_s * info.fps)
    return None


def told(ways: Iterable[Way], split: Split) -> list[str]:
    """A line for the user for each mode and reason: how many videos go that way."""
    counts: dict[tuple[Mode, str], list[int]] = {}
    for way in ways:
        count = counts.setdefault((way.mode, way.reason), [0, 0])
        count[0] += 1
        count[1] += way.windows
    how = {
        "video": "in one pass",
        "resume": f"in one pass that saves its state every {split.seconds:g} s of video",
        "parallel": "in windows at the same time",
    }
    lines = []
    for (mode, reason), (videos, windows) in sorted(counts.items()):
        text = f"{videos} video{'s' if videos > 1 else ''} {how[mode]}"
        text += f", {windows} windows" if mode == "parallel" else ""
        lines.append(f"{text} ({mode}): {reason}")
    return lines


def _longest_first(info: VideoInfo) -> tuple[float, str]:
    frames = expected_frames(info)
    return (float("-inf") if frames is None else -frames, info.video_id)
