"""Stretches of a trial stand for all frames of an archive."""

from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.planning.stretches import stretches
from pipeline.tracking.config import TrackConfig
from pipeline.video.info import VideoInfo
from pipeline.video.only import OnlyConfig

ALL = TrackConfig(input="in", output="out")


def video(name, frames, width=640):
    values = {
        "video_id": name, "uri": name, "relative_path": name, "size_bytes": 1000,
        "container": "mp4", "codec": "h264", "pixel_format": "yuv420p", "width": width,
        "height": 480, "rotation": 0, "fps": 25.0, "time_base": "1/25", "variable_rate": False,
        "frames_expected": frames, "duration_s": frames / 25,
    }  # fmt: skip
    return VideoInfo(**values)


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=20))
def test_a_video_gets_stretches_by_its_share_of_the_frames(frames):
    videos = [video(f"{n:02}", count, 100 + n) for n, count in enumerate(frames)]
    count = 200
    found = Counter(s.info.video_id for s in islice(stretches(videos, ALL), count))
    for info in videos:
        share = info.frames_expected / sum(frames)
        assert abs(found[info.video_id] - count * share) <= 5


def test_the_first_stretches_are_of_different_sizes():
    videos = [video(str(n), 1000, 100 * (n + 1)) for n in range(6)]
    assert len({s.info.width for s in islice(stretches(videos, ALL), 6)}) >= 4


@pytest.mark.parametrize(("only", "low", "high"), [
    (OnlyConfig(), 0, 380),
    (OnlyConfig(start_s=100), 100, 380),
    (OnlyConfig(start_s=100, end_s=200), 100, 180),
])  # fmt: skip
def test_stretches_lie_in_what_is_wanted_with_room_behind(only, low, high):
    config = TrackConfig(input="in", output="out", only=only)
    places = [s.start_s for s in islice(stretches([video("long", 10_000)], config), 50)]
    begins = [place for place in places if place is not None]
    assert all(low < place <= high for place in begins)
    assert max(begins) - min(begins) > 0.8 * (high - low)


def test_short_videos_and_those_of_unknown_length_are_tracked_from_their_start():
    unknown = replace(video("unknown", 1), frames_expected=None, duration_s=None, size_bytes=10**6)
    for info in (video("short", 100), unknown):
        assert {s.start_s for s in islice(stretches([info], ALL), 5)} == {None}
