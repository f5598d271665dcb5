"""Looks are gathered as the rows say, keep their bits on disk, and join as one."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.stitching.appearance import appearances, separate_appearances
from pipeline.stitching.colours import COLOURS
from pipeline.stitching.looks import Looks
from tests.pipeline.stitching.crowd import DIM, FPS, Walker, columns, glance_at


def gathered(walkers, frames, size=8, views=None):
    """Looks after some windows of frames."""
    looks = Looks(DIM)
    for start in range(0, frames, size):
        rows = [r for w in walkers for r in w.rows(start, min(frames, start + size) - 1)]
        looks.add(columns(rows), None)
        ids = sorted({r[1] for r in rows})
        if views is not None and ids:
            looks.add(columns([]), glance_at(ids, [views(i, start) for i in ids]))
    return looks


def test_sights_and_velocities_are_those_of_the_rows():
    looks = gathered([Walker(3, 2, 30, (10.0, 5.0), (1.0, -0.5)), Walker(1, 9, 9)], 40)
    one, three = looks.records()
    assert (one["track_id"], three["track_id"]) == (1, 3)
    assert (three["first_s"], three["last_s"], three["boxes"]) == (0.2, 3.0, 29)
    np.testing.assert_allclose(three["first_box"], (12, 4, 20, 50))
    np.testing.assert_allclose(three["last_box"], (40, -10, 20, 50))
    for name in ("first_velocity", "last_velocity"):
        np.testing.assert_allclose(three[name], (1.0 * FPS, -0.5 * FPS), rtol=1e-4)
        np.testing.assert_array_equal(one[name], 0)
    assert three["score_sum"] == pytest.approx(29 * 0.9)


def test_sights_do_not_depend_on_the_windows_of_frames():
    walkers = [Walker(i, i, 40 + i, (50.0 * i, 0.0), (2.0, 1.0)) for i in range(1, 80)]
    a, b = (gathered(walkers, 130, size).records() for size in (8, 130))
    for name in ("track_id", "first_s", "last_s", "first_box", "last_box", "boxes"):
        np.testing.assert_array_equal(a[name], b[name])
    np.testing.assert_allclose(a["last_velocity"], b["last_velocity"], rtol=1e-3)


def test_only_tracks_seen_in_the_last_frame_give_a_view():
    looks = Looks(DIM)
    looks.add(columns([(0, 1, 0, 0), (0, 2, 90, 0)]), None)
    views = np.arange(3 * DIM, dtype=np.float32).reshape(3, DIM)
    # Track 2 was missed, and track 3 has no row, because it lies outside the picture.
    looks.add(columns([]), glance_at([1, 2, 3], views, misses=[0, 1, 0]))
    records = looks.records()
    assert records["track_id"].tolist() == [1, 2]
    assert records["views"].tolist() == [1, 0]
    np.testing.assert_array_equal(records["view_sum"][0, :DIM], views[0])


def noisy(i, start):
    return np.random.default_rng([i, start]).standard_normal(DIM)


def test_on_disk_and_back_is_the_same_to_the_last_bit(tmp_path):
    walkers = [Walker(i, i, 60, (30.0 * i, 0.0)) for i in range(1, 90)]
    looks = gathered(walkers, 64, views=noisy)
    pq.write_table(looks.to_arrow(), tmp_path / "looks.parquet")
    back = Looks.from_arrow(pq.read_table(tmp_path / "looks.parquet"))
    more = columns([(64, 2, 0.0, 0.0), (64, 99, 5.0, 5.0)])
    for each in (looks, back):
        each.add(more, glance_at([2, 99], [noisy(2, 64), noisy(99, 64)]))
    np.testing.assert_array_equal(looks.records(), back.records())
    np.testing.assert_array_equal(looks.squares, back.squares)
    assert len(Looks.from_arrow(Looks(DIM).to_arrow())) == 0
    with pytest.raises(ValueError, match="not a table of looks"):
        Looks.from_arrow(pa.table({"track_id": [1]}))
    with pytest.raises(ValueError, match="not a table of looks"):
        Looks.from_arrow(looks.to_arrow().replace_schema_metadata(None))


def test_looks_of_windows_are_merged_to_those_of_the_video():
    walkers = [Walker(1, 0, 63), Walker(2, 10, 20, (90.0, 0.0)), Walker(3, 40, 50, (9.0, 90.0))]
    whole = gathered(walkers, 64, views=noisy)
    halves = []
    for first, last, shift in ((0, 31, 0), (32, 63, 10)):
        half = Looks(DIM)
        for start in range(first, last, 8):
            rows = [
                (f, i + shift, x, y) for w in walkers for f, i, x, y in w.rows(start, start + 7)
            ]
            half.add(columns(rows), None)
            ids = sorted({r[1] for r in rows})
            half.add(columns([]), glance_at(ids, [noisy(i - shift, start) for i in ids]))
        halves.append(half)
    merged = Looks.merged(DIM, [(halves[0], {1: 1, 2: 2}), (halves[1], {11: 1, 13: 3})])
    a, b = whole.records(), merged.records()
    for name in ("track_id", "first_s", "last_s", "first_box", "last_box", "boxes", "views"):
        np.testing.assert_array_equal(a[name], b[name])
    np.testing.assert_allclose(a["view_sum"], b["view_sum"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(whole.spread(), merged.spread(), atol=1e-4)
    # A track that is left out leaves its spread, and no trace of its mean.
    some = Looks.merged(DIM, [(whole, {1: 1, 2: 2})])
    np.testing.assert_allclose(some.spread(), whole.spread(), atol=1e-6)


def test_spread_is_that_around_the_means_of_the_tracks():
    looks = gathered([Walker(1, 0, 39), Walker(2, 0, 39)], 40, views=noisy)
    expected = np.zeros((DIM, DIM))
    for i in (1, 2):
        views = np.array([noisy(i, s) for s in range(0, 40, 8)])
        expected += (views - views.mean(0)).T @ (views - views.mean(0))
    np.testing.assert_allclose(looks.spread()[:DIM, :DIM], expected, atol=1e-5)


def test_who_one_is_counts_more_than_where_one_is():
    # The first direction tells the place, which changes much; the second tells the person.
    def view(i, start):
        place = np.sin(start + i) * 10
        return np.array([place, 1.0 if i % 2 else -1.0, *[0.01 * start] * (DIM - 2)])

    looks = gathered([Walker(i, 0, 79) for i in (1, 2, 3, 4)], 80, views=view)
    vectors, _ = separate_appearances(looks.records(), looks.spread())
    similarity = vectors @ vectors.T
    assert similarity[0, 2] > 0.9
    assert similarity[1, 3] > 0.9
    assert similarity[0, 1] < -0.5


def test_without_views_nobody_is_like_anybody():
    looks = gathered([Walker(1, 0, 9), Walker(2, 0, 9)], 10)
    assert not appearances(looks.records(), looks.spread()).any()
    assert appearances(Looks(DIM).records(), np.zeros((DIM + COLOURS,) * 2)).shape == (
        0,
        DIM + COLOURS,
    )
