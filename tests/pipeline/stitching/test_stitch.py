"""Windows are joined to what one pass would have been."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.stitching.overlap import match_overlap
from pipeline.stitching.stitch import ChainBroken, Window, stitch
from pipeline.stitching.window import Sights
from pipeline.storage.schema import SEAMS, rows_table
from tests.pipeline.stitching.crowd import DIM, FPS, Walker, columns, cut, finished, first_frame

SETTINGS = {"dim": DIM, "max_gap_s": 0.5, "rejoin_gap_s": 0.0}


@st.composite
def crowds(draw):
    """People who are each on a track of their own, windows, and ids that differ between them."""
    frames = draw(st.integers(40, 90))
    windows = draw(st.integers(1, 4))
    overlap = draw(st.integers(2, frames // windows // 2))
    walkers = []
    for i in range(1, draw(st.integers(0, 6)) + 1):
        first = draw(st.integers(0, frames - 1))
        last = draw(st.integers(first, frames - 1))
        velocity = draw(st.sampled_from([(0.0, 0.0), (1.0, 0.0), (-2.0, 0.5), (3.0, 0.0)]))
        walkers.append(Walker(i, first, last, (61.0 * i, draw(st.integers(0, 9))), velocity))
    ids = [w.track_id for w in walkers]
    rename = {
        number: dict(zip(ids, draw(st.permutations(range(11, 11 + len(ids)))), strict=True))
        for number in range(windows)
    }
    return walkers, frames, windows, overlap, rename


@settings(max_examples=60, deadline=None)
@given(crowds())
def test_a_perfect_video_cut_into_windows_is_stitched_to_itself(crowd):
    walkers, frames, windows, overlap, rename = crowd
    stitched = stitch(cut(walkers, frames, windows, overlap, rename), **SETTINGS)
    rows = finished(walkers, frames, windows, stitched, rename)
    pairs = {(original, number) for _, original, number in rows}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    # Ids count from 1 in the order of appearance.
    appearance = list(dict.fromkeys(number for _, _, number in sorted(rows, key=lambda r: r[0])))
    first = {number: min(f for f, _, n in rows if n == number) for number in appearance}
    assert sorted(first) == list(range(1, len(first) + 1))
    assert all(first[n] <= first[n + 1] for n in range(1, len(first)))
    # Nothing beside the finished rows leaves an id.
    assert {n for ids in stitched.ids for n in ids.values()} == set(first)
    bounds = [round(frames * i / windows) for i in range(windows)]
    assert stitched.frame_offsets == [first_frame(b, overlap) if b else 0 for b in bounds]
    crossing = sum(w.first < b <= w.last for w in walkers for b in bounds[1:])
    assert stitched.counters["seam_matches"] == crossing
    assert stitched.counters["seams"] == windows - 1
    rows_table([{"video_id": "v", **row} for row in stitched.seams], SEAMS)


def test_a_window_with_nobody_and_a_video_with_nobody():
    walkers = [Walker(1, 0, 15), Walker(2, 45, 59)]
    stitched = stitch(cut(walkers, 60, 3, 5), **SETTINGS)
    assert stitched.ids == [{1: 1}, {}, {2: 2}]
    assert stitch(cut([], 60, 3, 5), **SETTINGS).counters["seam_matches"] == 0


def test_a_track_of_the_discarded_rows_leaves_no_id():
    walkers = [Walker(1, 0, 59)]
    parts = cut(walkers, 60, 2, 8)
    # The right window begins with a box that the left one did not take for a person.
    ghost = [Walker(1, 0, 59), Walker(9, 24, 27, (400.0, 0.0))]
    parts[1] = cut(ghost, 60, 2, 8)[1]
    stitched = stitch(parts, **SETTINGS)
    assert stitched.ids == [{1: 1}, {1: 1}]
    assert stitched.counters["seam_unmatched"] == 0


def test_two_who_cross_in_the_overlap_keep_their_ids():
    walkers = [
        Walker(1, 0, 99, (0.0, 0.0), (4.0, 0.0)),
        Walker(2, 0, 99, (376.0, 2.0), (-4.0, 0.0)),
    ]
    rename = {1: {1: 2, 2: 1}}
    stitched = stitch(cut(walkers, 100, 2, 20, rename), **SETTINGS)
    assert stitched.ids == [{1: 1, 2: 2}, {1: 2, 2: 1}]


def test_of_two_on_one_place_appearance_decides():
    walkers = [Walker(1, 0, 99), Walker(2, 0, 99, (1.0, 0.0))]
    rename = {1: {1: 2, 2: 1}}
    people = {1: 1, 2: 2}
    stitched = stitch(cut(walkers, 100, 2, 20, rename, people), **SETTINGS)
    assert stitched.ids[1] == {2: 1, 1: 2}
    assert stitched.counters["seam_conflicts"] == 2
    assert all(row["similarity"] is not None for row in stitched.seams)


def test_who_is_matched_at_the_seam_counts_more_than_who_was_before():
    # The left window's track 1 goes over to another person in the middle of the overlap.
    left = [
        Walker(1, 0, 39),
        Walker(1, 40, 49, (300.0, 0.0)),
    ]
    right = [Walker(5, 30, 99), Walker(6, 30, 99, (300.0, 0.0))]
    parts = [cut(left, 100, 2, 20)[0], cut(right, 100, 2, 20)[1]]
    assert stitch(parts, **SETTINGS).ids == [{1: 1}, {5: 2, 6: 1}]


def test_one_person_is_matched_though_both_windows_miss_frames():
    parts = [cut([Walker(1, f, f) for f in range(0, 50, step)], 100, 2, 20)[0] for step in (2, 3)]
    right = cut([Walker(1, f, f) for f in range(30, 100, 3)], 100, 2, 20)[1]
    for left in parts:
        stitched = stitch([left, right], **SETTINGS | {"max_gap_s": 0.0})
        assert stitched.ids[1] == {1: 1}


def test_two_beside_each_other_are_not_one():
    # Boxes are 20 pixels wide, so these overlap by a third all the time.
    left = cut([Walker(1, 0, 99)], 100, 2, 20)[0]
    right = cut([Walker(1, 0, 99, (10.0, 0.0))], 100, 2, 20)[1]
    assert stitch([left, right], **SETTINGS).ids[1] == {1: 2}


def test_a_person_unseen_at_the_seam_is_found_again_for_as_long_as_the_tracker_looks():
    walkers = [Walker(1, 0, 47), Walker(2, 0, 99, (0.0, 300.0)), Walker(3, 52, 99)]
    people = {1: 1, 2: 2, 3: 1}
    parts = cut(walkers, 100, 2, 10, None, people)
    assert stitch(parts, **SETTINGS).ids[1] == {2: 2, 3: 1}
    assert stitch(parts, **SETTINGS | {"max_gap_s": 0.3}).ids[1] == {2: 2, 3: 3}
    row = next(r for r in stitch(parts, **SETTINGS).seams if r["gap_s"] > 0)
    assert (row["outcome"], row["left_track_id"], row["overlap"]) == ("matched", 1, None)
    assert row["gap_s"] == pytest.approx(0.5)


def test_the_same_person_after_a_long_absence_only_if_asked():
    walkers = [Walker(1, 0, 30), Walker(2, 0, 99, (0.0, 300.0)), Walker(3, 80, 99)]
    people = {1: 1, 2: 2, 3: 1}
    parts = cut(walkers, 100, 2, 10, None, people)
    assert stitch(parts, **SETTINGS).ids[1] == {2: 2, 3: 3}
    back = stitch(parts, **SETTINGS | {"rejoin_gap_s": 10.0})
    assert back.ids[1] == {2: 2, 3: 1}
    assert back.counters["rejoined"] == 1


@pytest.mark.parametrize("fault", ["nothing shared", "times", "missing"])
def test_a_chain_that_breaks_says_where(fault):
    left, right = cut([Walker(1, 0, 99)], 100, 2, 10)
    frames = np.arange(10)
    times = (frames + 40) / FPS
    if fault == "nothing shared":
        frames, times = frames[:0], times[:0]
    elif fault == "times":
        times = times + 0.01
    else:
        frames = frames + (frames > 5)
    rows = {"frame_index": frames, "time_s": times}
    empty = columns([])
    tables = [pa.table(t) for t in (empty, rows)]
    right = Window.of(*tables, right.looks, right.start_s, math.inf, 1.0)
    with pytest.raises(ChainBroken, match=r"5\.000 s"):
        stitch([left, right], **SETTINGS)


def sights(frames, tracks):
    """Boxes of tracks (id, first frame, last frame, x), in the order of the frames."""
    rows = sorted((f, i, x) for i, first, last, x in tracks for f in range(first, last + 1))
    frame, track_id, x = np.array(rows).T
    boxes = np.stack([x, 0 * x, 0 * x + 20, 0 * x + 50], 1).astype(np.float32)
    return Sights(np.arange(frames), np.arange(frames) / FPS, frame, track_id, boxes)


def test_a_track_that_ended_early_in_the_overlap_gives_way_to_one_that_goes_on():
    left = sights(20, [(1, 0, 1, 300), (2, 0, 19, 0)])
    # Begins on the first person, and is drawn over to the second.
    right = sights(20, [(7, 0, 1, 300), (7, 2, 19, 0)])
    match = match_overlap(left, right, np.array([[1.0], [-1.0]]))
    assert match.pairs == [(1, 0)]
    assert match.conflicts == [(0, 0)]
    assert match.overlap[0, 0] == pytest.approx(1.0)


def test_who_is_lost_early_in_the_overlap_is_matched_where_nobody_else_is():
    left, right = sights(20, [(1, 0, 3, 0)]), sights(20, [(7, 0, 19, 0)])
    assert match_overlap(left, right, np.array([[-1.0]])).pairs == [(0, 0)]
