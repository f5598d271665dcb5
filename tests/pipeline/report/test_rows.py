"""Rows of a video as what its page draws: nothing is lost between batches and chunks."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.report import video_tables
from pipeline.report.frame_rows import FrameRows, best_view, curves, low_stretches
from pipeline.report.track_bars import TrackBars
from pipeline.report.video_tables import VideoRows
from pipeline.storage.files import StorageError
from tests.pipeline.report.runs import Clip, write_run


def frame_rows(quality, people=None, step=0.1, start=0):
    count = len(quality)
    people = np.zeros(count, int) if people is None else np.array(people)
    quality = np.array(quality, np.float32)
    return FrameRows(
        np.arange(start, start + count), step * np.arange(count), quality, 1 - quality, people
    )


# Which of twelve frames each track is seen in.
SEEN = st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=1, max_size=5)


def naive_bars(seen, limit):
    """Bars of a track by walking over its frames one by one."""
    bars, last = [], None
    for frame in np.flatnonzero(seen).tolist():
        if last is None or 0.1 * (frame - last) > limit:
            bars.append([frame, frame])
        bars[-1][1] = last = frame
    return bars


@given(SEEN, st.integers(1, 7), st.integers(1, 4))
@settings(max_examples=60)
def test_bars_do_not_depend_on_batches(seen, batch, limit):
    table = np.array(seen)
    rows = [(frame, track) for frame in range(12) for track in range(len(seen))
            if table[track, frame]]  # fmt: skip
    sums = TrackBars(frame_rows([0.5] * 12))
    sums._limit_s = limit * 0.1 + 0.05
    for start in range(0, len(rows), batch):
        frame, track = np.array(rows[start : start + batch]).T
        sums.add(track, frame)
    present = [track for track in range(len(seen)) if table[track].any()]
    assert sorted(sums.ids.tolist()) == present
    assert [int(sums.first[i]) for i in sums.ids] == sorted(int(sums.first[i]) for i in present)
    drawn = {}
    for number, start, end in zip(*(a.tolist() for a in sums.bars()), strict=True):
        drawn.setdefault(number, []).append([start, end])
    for track in present:
        frames = np.flatnonzero(table[track])
        assert sorted(drawn[track]) == naive_bars(table[track], sums._limit_s)
        assert (sums.first[track], sums.last[track]) == (frames[0], frames[-1])


@given(SEEN, st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=60)
def test_chunks_hold_each_frame_and_each_box_once(tmp_path_factory, seen, batch, most):
    folder = tmp_path_factory.mktemp("rows")
    table = np.array(seen)
    rows = [(frame, track) for frame in range(12) for track in range(len(seen))
            if table[track, frame]]  # fmt: skip
    frame, track = np.array(rows or np.zeros((0, 2), int)).T
    (folder / "frames").mkdir()
    (folder / "tracks").mkdir()
    index = 100 + np.arange(12)  # a file of which the first frames were not tracked
    times = pa.array(0.1 * np.arange(12))
    plain = pa.array(np.full(12, 0.5, np.float32))
    pq.write_table(
        pa.table({"frame_index": index, "time_s": times, "quality": plain,
                  "semantic_weight": plain, "num_tracks": table.sum(axis=0).astype(np.int32)}),
        folder / "frames" / "v.parquet",
    )  # fmt: skip
    box = {name: pa.array(frame + n, pa.float32()) for n, name in enumerate("xywh")}
    pq.write_table(
        pa.table({"frame_index": frame + 100, "track_id": track, **box,
                  "score": pa.array(np.full(len(frame), 0.5, np.float32))}),
        folder / "tracks" / "v.parquet",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        # Batches of a table, as small as they come.
        whole = video_tables.video_batches

        def small(*arguments):
            for part in whole(*arguments):
                yield from (part.slice(at, batch) for at in range(0, len(part), batch))

        patch.setattr(video_tables, "video_batches", small)
        chunks = list(VideoRows(str(folder), "v", (100, 100)).chunks(most))
    assert np.concatenate([c.time_s for c in chunks]).tolist() == times.to_pylist()
    found = []
    for chunk in chunks:
        assert len(chunk.first) == len(chunk.time_s) + 1
        assert len(chunk.time_s) == 1 or len(chunk.track_id) <= most + len(seen)
        for place, time_s in enumerate(chunk.time_s):
            for row in range(chunk.first[place], chunk.first[place + 1]):
                found.append((round(time_s / 0.1), int(chunk.track_id[row])))
                assert chunk.boxes[row, 0] == found[-1][0]
    assert found == rows


@pytest.mark.parametrize(
    ("length_s", "begin_s", "step_s", "numbers"),
    [(30, [0, 29], 60, [2]), (130, [0, 59, 61, 129], 60, [2, 1, 1]),
     (3000, [601, 2999], 600, [0, 1, 0, 0, 1]), (9000, [7300], 3600, [0, 0, 1])],
)  # fmt: skip
def test_people_by_the_hour_they_come(length_s, begin_s, step_s, numbers):
    sums = TrackBars(frame_rows([0.9] * length_s, step=1.0))
    frame = np.array(begin_s)
    sums.add(np.arange(len(frame)), frame)
    assert sums.arrivals() == (step_s, numbers)


def test_curves_are_means_of_bins_and_have_gaps():
    frames = frame_rows([0.2, 0.4, 0.6, 0.8], people=[1, 2, 3, 4])
    shown = curves(frames)
    assert shown.step_s == pytest.approx(0.1)
    assert shown.quality.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8])
    apart = FrameRows(np.arange(4), np.array([0.0, 0.1, 0.2, 0.5]), *(np.ones(4),) * 3)
    assert np.isnan(curves(apart).quality).tolist() == [False] * 3 + [True] * 2 + [False]


def test_curves_of_a_long_video_have_a_bounded_number_of_points():
    quality = np.full(50_000, 0.9)
    quality[25_000] = 0.1
    shown = curves(frame_rows(quality, step=0.04))
    assert len(shown.quality) <= 2001
    assert np.nanmin(shown.quality_low) == pytest.approx(0.1)  # a short drop stays visible
    assert np.nanmin(shown.quality) > 0.8


def test_stretches_of_low_quality_are_joined_and_the_shortest_left_out():
    quality = np.full(100, 0.9)
    quality[10:20] = quality[25:30] = quality[60] = 0.1
    assert low_stretches(frame_rows(quality), 0.5) == [(pytest.approx(1.0), pytest.approx(3.0))]
    assert low_stretches(frame_rows([0.9] * 5), 0.5) == []


def test_the_first_view_shows_most_people():
    assert best_view(frame_rows([0.9, 0.5, 0.8, 0.7], people=[1, 3, 3, 2])) == 2


def test_the_first_view_is_the_best_of_the_surest_track(tmp_path):
    quality = [0.5] * 20 + [0.9] * 80  # nobody is clearer than the short track at the end
    clips = [
        Clip("long.mp4", 100, ((0, 40), (90, 99)), quality, made=False),
        Clip("trust.mp4", 100, ((0, 40), (90, 99)), quality, made=False, trust=(0.01, 0.99)),
        Clip("nobody.mp4", 100, (), quality, made=False),
        Clip("old.mp4", 100, ((0, 40), (90, 99)), quality, made=False, summary=False),
    ]
    output = str(write_run(tmp_path, clips))
    views = {name: VideoRows(output, name, (160, 96)).view
             for name in ("long", "trust", "nobody", "old")}  # fmt: skip
    assert 0 <= views["long"] < 40 and 90 <= views["trust"] < 99
    assert views["nobody"] == 99 and views["old"] == 98


def test_a_video_without_a_summary_gets_the_same_tracks_without_trust(tmp_path):
    tracks = ((0, 50), (10, 40), (5, 30))
    clips = [
        Clip("with.mp4", tracks=tracks, made=False, trust=(0.9, 0.2, 0.6)),
        Clip("without.mp4", tracks=tracks, made=False, summary=False),
    ]
    output = write_run(tmp_path, clips)
    found = {}
    for name in ("with", "without"):
        rows = VideoRows(str(output), name, (160, 96))
        assert sum(len(chunk.track_id) for chunk in rows.chunks(7)) == 105
        found[name] = rows.tracks
    for field in ("id", "first_s", "last_s", "boxes", "best", "best_box", "score", "quality"):
        one, other = (getattr(found[name], field) for name in ("with", "without"))
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert found["with"].id.tolist() == [1, 3, 2]  # by their first frame
    assert found["with"].trust.tolist() == pytest.approx([0.9, 0.6, 0.2])
    assert (found["with"].low_trust, found["with"].trust_known) == (1, True)
    assert (found["without"].low_trust, found["without"].trust_known) == (0, False)


def test_a_table_that_is_missing_is_named(tmp_path):
    output = write_run(tmp_path, [Clip("a.mp4", made=False)])
    with pytest.raises(StorageError, match=r"frames has no row of the video b"):
        VideoRows(str(output), "b", (160, 96))
