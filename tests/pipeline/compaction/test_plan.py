"""Groups of videos that become sets, and the keys they are partitioned by."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.compaction.plan import FreshVideo, groups, partition_folder, partition_value
from pipeline.storage.compacted import CompactedSet

SIZES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 150)), max_size=30)


@given(SIZES, SIZES)
def test_every_video_is_in_one_group_and_no_group_is_too_large(fresh, earlier):
    videos = sorted(
        (FreshVideo(f"v{n:02}", key, size, False) for n, (key, size) in enumerate(fresh)),
        key=lambda v: (v.partition, v.video_id),
    )
    sets = [CompactedSet(f"s{n}", key, "", "", 1, size) for n, (key, size) in enumerate(earlier)]
    made = list(groups(videos, sets, 100))
    assert [v for group in made for v in group.videos] == videos
    for group in made:
        assert {v.partition for v in group.videos} == {group.partition}
        assert len(group.videos) == 1 or sum(v.bytes for v in group.videos) <= 100
    # One more video would have been too much for each group but the last of a partition.
    for one, other in pairwise(made):
        if one.partition == other.partition:
            assert sum(v.bytes for v in one.videos) + other.videos[0].bytes > 100
            assert not one.sets
    # Small sets of a partition that gets videos are merged again, each once.
    touched = {v.partition for v in videos}
    small = [s for s in sets if s.bytes < 50 and s.partition in touched]
    assert sorted(s.path for g in made for s in g.sets) == sorted(s.path for s in small)


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        ("cam1/a/b.mp4", "folder", "cam1"),
        ("b.mp4", "folder", ""),
        ("cam1/2026-03-31/b.mp4", "day", "2026-03-31"),
        ("cam1/20260331_142500.mp4", "day", "2026-03-31"),
        ("cam1_20260331142500.mp4", "day", "2026-03-31"),
        ("2026/03/31/b.mp4", "day", "2026-03-31"),
        ("2026-02-30/2026-03-01.mp4", "day", "2026-03-01"),
        ("clip-1202603319.mp4", "day", ""),
        ("2026-0331.mp4", "day", ""),
        ("cam1/b.mp4", "none", ""),
    ],
)
def test_partition_values(path, key, value):
    assert partition_value(path, key) == value


def test_partition_folders_are_those_of_hive():
    assert partition_folder("cam 1/ä", "folder") == "folder=cam%201%2F%C3%A4/"
    assert partition_folder("", "day") == "day=__HIVE_DEFAULT_PARTITION__/"
    assert partition_folder("", "none") == ""
