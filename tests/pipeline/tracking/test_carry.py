"""Sampled frames and still frames: rows, counts, and what a run says of them."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.track import main as track_job
from pipeline.storage.files import list_videos
from pipeline.storage.schema import FRAMES, TRACKS
from pipeline.tracking import track_video as track_video_module
from pipeline.tracking.carry import (
    carried_after,
    carried_before,
    last_frame,
    next_window,
    with_carried,
)
from pipeline.tracking.config import SampleConfig
from pipeline.tracking.tables import VideoTables, WindowRows
from pipeline.tracking.track_video import (
    TrackSettings,
    open_tracker,
    sampled_rules,
)
from pipeline.tracking.whole_video import track_video
from pipeline.video.decode import Frame
from pipeline.video.probe import probe
from tests import videos
from tests.pipeline.archive.test_plan import INFO
from tests.tiny import TINY

EMPTY = np.empty((0, 0, 3), np.uint8)


def frames_of(still):
    return [Frame(3 * i, i / 25, EMPTY, EMPTY, s) for i, s in enumerate(still)]


def rows_of(frames, people):
    """Made-up rows of frames that were encoded; the person's id tells frame and number."""
    counts = np.array([people[frame.index] for frame in frames], np.int32)
    row = np.repeat(np.arange(len(frames)), counts)
    number = np.concatenate([np.arange(count) for count in counts])
    index = np.array([frame.index for frame in frames])
    tracks = {name: np.zeros(len(row), np.float32) for name in TRACKS.names[1:]}
    tracks |= {"frame_index": index[row], "track_id": 1000 * index[row] + number}
    columns = {name: np.zeros(len(frames), np.float32) for name in FRAMES.names[1:]}
    columns |= {"frame_index": index, "num_tracks": counts, "quality": index / 1000}
    columns |= {"cut": np.zeros(len(frames), bool)}
    return WindowRows(tracks, columns)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=1, max_size=40),
    st.integers(1, 5),
)
def test_a_still_frame_repeats_the_last_encoded_one(drawn, size):
    still = [False, *[s for s, _ in drawn]]
    frames = frames_of(still)
    people = {frame.index: n for frame, n in zip(frames, [2, *[n for _, n in drawn]], strict=True)}
    source, given_frames = iter(frames), []
    last, seen, shown = None, {}, {}
    while window := next_window(source, size):
        fresh = [frame for frame in window if not frame.still]
        assert len(fresh) <= size
        given_frames += window
        rows = rows_of(fresh, people) if fresh else None
        both = with_carried(window, rows, last)
        last = last if rows is None else last_frame(rows)
        assert both.frames["encoded"].tolist() == [not frame.still for frame in window]
        for place, frame in enumerate(window):
            of_frame = both.tracks["frame_index"] == frame.index
            seen[frame.index] = both.tracks["track_id"][of_frame].tolist()
            shown[frame.index] = round(both.frames["quality"][place] * 1000)
            assert (both.tracks["time_s"][of_frame] == frame.time_s).all()
            assert both.frames["num_tracks"][place] == len(seen[frame.index])
        assert (np.diff(both.tracks["frame_index"]) >= 0).all()
    assert given_frames == frames
    encoded = 0
    for frame in frames:
        encoded = encoded if frame.still else frame.index
        assert seen[frame.index] == [1000 * encoded + n for n in range(people[encoded])]
        assert shown[frame.index] == encoded


def test_a_window_of_still_frames_ends():
    frames = iter(frames_of([False] + [True] * 200))
    assert [len(next_window(frames, 2)) for _ in range(5)] == [64, 64, 64, 9, 0]


@pytest.mark.parametrize(
    ("tolerance", "fps", "rate", "frames"),
    [(20, 10.0, 25.0, 8), (20, 1.0, 30.0, 1), (1, 5.0, 25.0, 1), (20, 24.0, 25.0, 19)],
)
def test_miss_tolerance_is_kept_in_seconds(tolerance, fps, rate, frames):
    config = replace(TINY, miss_tolerance=tolerance)
    rules = sampled_rules(config, replace(INFO, fps=rate), fps)
    assert rules.miss_tolerance == frames
    assert rules.keep_threshold == config.keep_threshold


@pytest.mark.parametrize(
    ("tolerance", "fps", "rate"),
    [(20, None, 25.0), (20, 25.0, 25.0), (20, 5.0, None), (0, 5.0, 25)],
)
def test_rules_of_the_checkpoint_hold_otherwise(tolerance, fps, rate):
    assert (
        sampled_rules(replace(TINY, miss_tolerance=tolerance), replace(INFO, fps=rate), fps) is None
    )


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), "ten"])
def test_a_rate_that_is_none_is_refused(fps):
    with pytest.raises(ValueError, match="fps"):
        SampleConfig(fps)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A video of three seconds; what it shows moves in the second one."""
    folder = tmp_path_factory.mktemp("archive")
    with pytest.MonkeyPatch.context() as patch:
        real = videos.picture
        patch.setattr(videos, "picture", lambda n, *size: real(min(max(n - 25, 0), 25), *size))
        videos.write_video(folder / "v.mp4", frames=75, codec_options={"crf": "12", "bf": "2"})
    return folder


def tracked(archive, settings):
    info = probe(next(list_videos(str(archive / "v.mp4"))))
    with VideoTables(info) as tables:
        row = track_video(open_tracker(settings), info, settings, tables)
        read = [pq.read_table(t.finished()).to_pandas() for t in (tables.tracks, tables.frames)]
        return *read, row


def test_still_frames_are_carried(archive, weights):
    settings = TrackSettings(str(weights))
    all_tracks, all_frames, all_row = tracked(archive, replace(settings, skip_still=False))
    assert all_frames.encoded.all() and all_row["frames_encoded"] == 75
    tracks, frames, row = tracked(archive, settings)
    assert frames.frame_index.tolist() == list(range(75))
    assert frames.encoded[26:50].all() and frames.encoded[[0, 25, 50]].all()
    assert (~frames.encoded[8:25]).all() and (~frames.encoded[57:75]).all()
    assert row["frames_tracked"] == 75 and row["frames_encoded"] == frames.encoded.sum() < 50
    # Up to the first still frame nothing differs.
    first = int(frames.index[~frames.encoded][0])
    before = all_tracks[all_tracks.frame_index < first]
    assert tracks[: len(before)].equals(before)
    values = ["track_id", "x", "y", "w", "h", "score"]
    by_frame = dict(list(tracks.groupby("frame_index")))
    assert len(by_frame) > 50
    for index in frames.index[~frames.encoded]:
        pair = [
            by_frame[i][values].to_numpy() if i in by_frame else None for i in (index - 1, index)
        ]
        assert np.array_equal(*pair)
        assert frames.quality[index] == frames.quality[index - 1]
        assert frames.time_s[index] == pytest.approx(index / 25)


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 5))
def test_still_frames_are_counted_across_windows(still, size):
    source, counts, pending = iter(frames_of(still)), [], 0
    while window := next_window(source, size):
        counts += carried_before(window, pending)
        pending = carried_after(window, pending)
    fresh = [i for i, s in enumerate(still) if not s]
    assert counts == [b - a - 1 for a, b in zip([-1, *fresh], fresh, strict=False)]
    assert pending == len(still) - 1 - max(fresh, default=-1)


@pytest.fixture
def carried(monkeypatch):
    """For each frame that is stepped, how many were carried before it."""
    counts = []
    real = track_video_module.track_shots

    def track_shots(model, encoded, cuts, state, rules, before):
        counts.extend(before)
        return real(model, encoded, cuts, state, rules, before)

    monkeypatch.setattr(track_video_module, "track_shots", track_shots)
    return counts


@pytest.mark.parametrize("window", [8, 1])
def test_steps_are_told_how_many_frames_were_carried(archive, weights, carried, window):
    _, frames, _ = tracked(archive, TrackSettings(str(weights), window=window))
    encoded = frames.index[frames.encoded].to_numpy()
    assert carried == [0, *(np.diff(encoded) - 1).tolist()]
    assert max(carried) > 10


def test_window_does_not_change_what_is_carried(archive, weights):
    settings = TrackSettings(str(weights), sample_fps=20)
    runs = [tracked(archive, replace(settings, window=n)) for n in (8, 3, 1)]
    for tracks, frames, _ in runs[1:]:
        assert frames[["frame_index", "encoded", "num_tracks"]].equals(
            runs[0][1][["frame_index", "encoded", "num_tracks"]]
        )
        ids = ["frame_index", "track_id"]
        assert tracks[ids].equals(runs[0][0][ids])
        assert np.allclose(tracks[["x", "y"]], runs[0][0][["x", "y"]], atol=1e-2)


def test_job_samples_and_skips_and_says_so(archive, weights, tmp_path, capsys):
    def run(*settings):
        words = [str(archive), str(tmp_path / "out"), f"weights={weights}"]
        fixed = ["cluster.workers=0", "mlflow.enabled=false", "report=false", "model.runtime=torch"]
        return track_job([*words, *fixed, *settings])

    assert run("sample.fps=10", "still.skip=auto") == 0
    said = capsys.readouterr().out
    frames = pq.read_table(tmp_path / "out" / "frames").to_pandas()
    row = pq.read_table(tmp_path / "out" / "videos").to_pylist()[0]
    expected = [n + d for n in range(0, 75, 5) for d in (0, 3)]
    assert frames.frame_index.tolist() == expected
    assert np.allclose(frames.time_s, frames.frame_index / 25)
    assert (row["frames_decoded"], row["frames_tracked"]) == (75, 30)
    assert row["frames_encoded"] == frames.encoded.sum() < 30
    assert row["video_s"] == pytest.approx(3, abs=0.1)
    assert f"{100 * row['frames_encoded'] / 75:.1f} %" in said
    with pytest.raises(SystemExit):
        run("sample.fps=5", "still.skip=off")
    refused = capsys.readouterr().err
    assert "sample.fps: 10.0 in the folder, 5.0 now" in refused
    assert 'still.skip: "auto" in the folder, "off" now' in refused
    with pytest.raises(SystemExit) as stopped:
        run("sample.fps=0")
    assert stopped.value.code == 2
