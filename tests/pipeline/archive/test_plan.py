"""The plan: the order of videos, and how each of them is tracked."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.archive.plan import Split, expected_frames, plan, told, window_count
from pipeline.video.info import VideoInfo

INFO = VideoInfo(
    video_id="a",
    uri="/a.mp4",
    relative_path="a.mp4",
    size_bytes=1,
    container="mp4",
    codec="h264",
    pixel_format="yuv420p",
    width=64,
    height=48,
    rotation=0,
    fps=25.0,
    time_base="1/25",
    variable_rate=False,
    frames_expected=10,
    duration_s=0.4,
)


def info(name, frames, **changes):
    return replace(INFO, video_id=name, frames_expected=frames, **changes)


WHOLE = Split("video")


def ids(segments):
    return [segment.video_id for segment in segments]


def planned(infos, split=WHOLE, begun=None):
    return plan(infos, split, begun)[0]


def test_longest_first_and_those_of_unknown_length_before():
    infos = [info("a", 5), info("b", 50), info("c", None, duration_s=None)]
    infos.append(info("e", None, duration_s=4.0))
    assert ids(planned(infos)) == ["c", "e", "b", "a"]
    assert expected_frames(infos[-1]) == 100


LENGTHS = st.one_of(st.none(), st.integers(0, 10**7))
NAMES = st.text("abcdef0123456789", min_size=1, max_size=4)
ARCHIVES = st.dictionaries(NAMES, LENGTHS, max_size=30).map(
    lambda found: [info(name, frames, duration_s=None) for name, frames in found.items()]
)
SPLITS = st.builds(
    Split,
    mode=st.sampled_from(["auto", "video", "resume", "parallel"]),
    seconds=st.floats(1, 1e5),
    workers=st.integers(1, 64),
)


@given(ARCHIVES, SPLITS)
def test_each_video_is_planned_once_with_all_its_windows(infos, split):
    segments, ways = plan(infos, split)
    assert set(ways) == {i.video_id for i in infos}
    for one in infos:
        way = ways[one.video_id]
        windows = [s.window for s in segments if s.video_id == one.video_id]
        if way.mode == "parallel":
            count = window_count(one, split.seconds)
            assert count == way.windows > 1
            assert windows == [(index, count) for index in range(count)]
        else:
            assert windows == [None]


@given(ARCHIVES)
def test_longest_first_and_what_may_be_longest_before(infos):
    lengths = [expected_frames(segment.info) for segment in planned(infos)]
    known = [length for length in lengths if length is not None]
    assert lengths == [None] * (len(lengths) - len(known)) + sorted(known, reverse=True)


@given(ARCHIVES, SPLITS, st.randoms(use_true_random=False))
def test_plan_does_not_depend_on_the_order_of_the_listing(infos, split, chance):
    shuffled = list(infos)
    chance.shuffle(shuffled)
    assert plan(shuffled, split) == plan(infos, split)


@given(ARCHIVES, st.data())
def test_run_that_goes_on_keeps_the_order(infos, data):
    """Whatever part is done, the rest comes as it would have come."""
    whole = ids(planned(infos))
    done = data.draw(st.sets(st.sampled_from(whole))) if whole else set()
    rest = [one for one in infos if one.video_id not in done]
    assert ids(planned(rest)) == [name for name in whole if name not in done]


def minutes(name, length):
    return info(name, round(length * 1500), duration_s=length * 60.0)


@pytest.mark.parametrize(
    ("video", "split", "mode", "windows", "why"),
    [
        (minutes("a", 19), Split(), "video", 1, "shorter than two windows"),
        (minutes("a", 21), Split(), "resume", 1, "no longer than the fair share"),
        (minutes("a", 21), Split(workers=2), "parallel", 2, "longer than the fair share"),
        (minutes("a", 49), Split(workers=2), "parallel", 4, "longer than the fair share"),
        (info("a", None, duration_s=None), Split(workers=8), "resume", 1, "tells no length"),
        (minutes("a", 90), Split("video", workers=8), "video", 1, "split.mode=video"),
        (minutes("a", 1), Split("resume"), "resume", 1, "split.mode=resume"),
        (minutes("a", 20), Split("parallel"), "parallel", 2, "split.mode=parallel"),
        (minutes("a", 19), Split("parallel"), "resume", 1, "too short for two windows"),
        (info("a", 3000, fps=None, duration_s=None), Split("parallel"), "resume", 1, "no length"),
    ],
)
def test_mode_by_length_and_workers(video, split, mode, windows, why):
    way = plan([video], split)[1]["a"]
    assert (way.mode, way.windows) == (mode, windows)
    assert why in way.reason
    (line,) = told([way], split)
    assert line.startswith("1 video in") and f"({mode}): " in line and why in line


def test_a_video_longer_than_the_fair_share_is_split_and_others_are_not():
    split = Split(workers=4)
    ways = plan([minutes("long", 600), *(minutes(str(n), 30) for n in range(10))], split)[1]
    assert ways["long"].mode == "parallel" and ways["long"].windows == 60
    assert {ways[str(n)].mode for n in range(10)} == {"resume"}
    assert [line.split(":")[0] for line in told(ways.values(), split)] == [
        "1 video in windows at the same time, 60 windows (parallel)",
        "10 videos in one pass that saves its state every 600 s of video (resume)",
    ]


def test_a_video_goes_on_in_the_mode_it_was_begun_in():
    long = minutes("a", 60)
    for begun in ("resume", "parallel"):
        for split in (Split(workers=1), Split(workers=8), Split(begun)):
            segments, ways = plan([long], split, {"a": begun})
            assert ways["a"].mode == begun
            assert len(segments) == (6 if begun == "parallel" else 1)
    assert plan([long], Split("parallel"), {"a": "resume"})[1]["a"].mode == "resume"
    for mode in ("video", "resume"):  # rows of these modes have no seams
        assert plan([long], Split(mode), {"a": "parallel"})[1]["a"].mode == mode
