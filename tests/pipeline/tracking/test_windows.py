"""Windows of one video that are tracked apart: the video is joined once, whatever comes first."""

import itertools
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.archive.plan import Segment
from pipeline.inference.stream_plan import StreamPlan
from pipeline.storage import files as storage
from pipeline.storage.files import list_stems
from pipeline.storage.schema import SEAMS, table_uri
from pipeline.tracking import windows as windows_module
from pipeline.tracking import worker as worker_module
from pipeline.tracking.attempts import Ledger
from pipeline.tracking.track_video import TrackSettings
from pipeline.tracking.windows import window_name, window_times
from pipeline.tracking.worker import VideoTracker, pack_segment, unpack_segment
from pipeline.video.errors import DecodeError
from pipeline.video.limits import Limits
from pipeline.video.only import OnlyConfig
from tests.pipeline.archive.test_plan import info
from tests.pipeline.tracking.passes import (
    Killed,
    info_of,
    killed_before,
    part_names,
    published,
    run,
    tracked,
)
from tests.videos import cut, write_video

FRAMES = 100
COUNT = 3
OVERLAP_S = 0.4


def segments(video, count=COUNT):
    return [Segment(video, "parallel", (i, count)) for i in range(count)]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return info_of(write_video(tmp_path_factory.mktemp("video") / "v.mp4", frames=FRAMES))


@pytest.fixture(scope="module")
def made(weights):
    limits = Limits(max_attempts=1000)
    return VideoTracker(
        TrackSettings(str(weights), config_hash="c", window=4, overlap_s=OVERLAP_S, limits=limits)
    )


@pytest.fixture
def worker(made, monkeypatch):
    """A worker whose settings a test may change."""
    for name in ("settings", "student", "notice", "report"):
        monkeypatch.setattr(made, name, getattr(made, name))
    return made


@pytest.fixture(scope="module")
def joined(made, video, tmp_path_factory):
    """Files and row of the video in windows, one after the other."""
    output = str(tmp_path_factory.mktemp("joined"))
    outcomes = [run(made, segment, output).outcome for segment in segments(video)]
    assert outcomes == ["part", "part", "ok"]
    return published(video, output)


@pytest.fixture(scope="module")
def whole(made, video, tmp_path_factory):
    return tracked(made, video, str(tmp_path_factory.mktemp("whole")), mode="video")


def rows(data):
    return pq.read_table(pa.BufferReader(data)).to_pandas()


def same(found, joined, repairs=None):
    assert found[:2] == joined[:2]
    assert found[2] | {"repairs": None} == joined[2]
    assert repairs in found[2]["repairs"] if repairs else not found[2]["repairs"]


@given(st.integers(1, 5000), st.integers(2, 9), st.floats(0.01, 4.0))
def test_windows_lie_side_by_side(frames, count, overlap_s):
    video = replace(info("a", frames), duration_s=None, fps=25.0)
    times = [window_times(video, i, count, overlap_s) for i in range(count)]
    assert times[0].begin_s is None and times[0].start_s == -math.inf and times[-1].end_s is None
    for left, right in itertools.pairwise(times):
        assert left.end_s == right.start_s
        assert right.begin_s == max(0.0, right.start_s - overlap_s)
    lengths = np.diff([0.0, *(t.end_s for t in times[:-1]), frames / 25])
    assert np.allclose(lengths, lengths[0])


def test_a_segment_survives_its_way_to_a_worker(video):
    for segment in (*segments(video), Segment(video), Segment(video, "resume")):
        assert unpack_segment(pack_segment(segment)["segment"]) == segment


def test_a_window_tells_of_the_seconds_that_it_has_tracked(worker, video, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(worker, "report", lambda name, place: told.append((name, place.video_s)))
    last = segments(video)[2]
    assert run(worker, last, str(tmp_path)).outcome == "part"
    length = FRAMES / 25
    assert {name for name, _ in told} == {f"{video.video_id} w2of3"}
    assert told[0][1] == 0.0
    assert told[-1][1] == pytest.approx(length / 3 + OVERLAP_S, abs=0.1)


def test_frames_are_those_of_one_pass(joined, whole):
    found, wanted = rows(joined[1]), rows(whole[1])
    assert found.frame_index.tolist() == list(range(FRAMES))
    assert found.time_s.tolist() == wanted.time_s.tolist()
    assert np.allclose(found.quality, wanted.quality, atol=1e-4)
    tracks = rows(joined[0])
    order = tracks[["frame_index", "track_id"]]
    assert order.equals(order.sort_values(["frame_index", "track_id"], ignore_index=True))
    assert not order.duplicated().any()
    counts = tracks.groupby("frame_index").size().reindex(range(FRAMES), fill_value=0)
    assert found.num_tracks.tolist() == counts.tolist()
    row = joined[2]
    assert (row["split_mode"], row["segments"], row["seams"]) == ("parallel", 3, 2)
    summary = rows(row["track_summary"])
    assert summary.track_id.tolist() == sorted(tracks.track_id.unique())
    assert summary.seams.sum() >= row["seam_matches"] and summary.seams.max() <= 2
    assert row["frames_decoded"] == row["frames_tracked"] == FRAMES
    assert row["num_tracks"] == tracks.track_id.nunique()
    assert (row["video_s"], row["status"]) == (whole[2]["video_s"], "ok")


@pytest.mark.parametrize("order", [(2, 1, 0), pytest.param((1, 0, 2), marks=pytest.mark.slow)])
def test_any_order_gives_the_same_bytes(worker, video, joined, tmp_path, order):
    output, parts = str(tmp_path), segments(video)
    outcomes = [run(worker, parts[i], output).outcome for i in order]
    assert outcomes == ["part", "part", "ok"]
    same(published(video, output), joined)
    assert not part_names(video, output)
    assert not Ledger(output, "r", False).entries(video.video_id, window_name((0, 3)))
    seams = pq.read_table(table_uri(output, "seams", video.video_id))
    assert seams.schema.equals(SEAMS, check_metadata=True)
    outcomes = seams["outcome"].to_pylist()
    assert outcomes.count("matched") == joined[2]["seam_matches"]
    assert [run(worker, segment, output).outcome for segment in parts] == ["ok"] * 3


@pytest.mark.parametrize(
    "changes",
    [
        {"sample_fps": 10.0},
        {"only": OnlyConfig(start_s=1.5)},  # the first window has no frame
        {"only": OnlyConfig(start_s=0.7, end_s=2.5)},
    ],
)
def test_other_frames_are_those_of_one_pass(worker, video, tmp_path, changes):
    one = tracked(worker, video, str(tmp_path / "one"), "video", **changes)
    for segment in segments(video):
        run(worker, segment, str(tmp_path / "two"), **changes)
    two = published(video, str(tmp_path / "two"))
    for name in ("frame_index", "time_s"):
        assert rows(two[1])[name].tolist() == rows(one[1])[name].tolist()
    for name in ("frames_decoded", "frames_tracked", "status", "video_s"):
        assert two[2][name] == one[2][name]
    assert two[2]["split_mode"] == "parallel"


def test_two_workers_join_at_once(worker, video, joined, tmp_path, monkeypatch):
    """Both have seen all windows there, before either has written a row."""
    output, parts = str(tmp_path), segments(video)
    for segment in parts[:2]:
        run(worker, segment, output)
    together, real = threading.Barrier(2, timeout=300), worker_module.join_windows

    def join_windows(*arguments):
        answer = real(*arguments)
        together.wait()
        return answer

    monkeypatch.setattr(worker_module, "join_windows", join_windows)
    # Otherwise the later one takes the attempt of the other for one that died, and waits for it.
    monkeypatch.setattr(worker_module.Ledger, "entries", lambda self, *of: set())
    monkeypatch.setattr(worker, "_plan", StreamPlan(streams=2))
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(worker.track, [parts[2], parts[2]]))
    assert [result.outcome for result in results] == ["ok", "ok"]
    same(published(video, output), joined)


def test_windows_beside_each_other_in_one_worker(worker, video, joined, tmp_path, monkeypatch):
    worker.settings = replace(worker.settings, output=str(tmp_path))
    monkeypatch.setattr(worker, "_plan", StreamPlan(streams=3))
    with ThreadPoolExecutor(3) as pool:
        outcomes = [result.outcome for result in pool.map(worker.track, segments(video))]
    assert "ok" in outcomes and set(outcomes) <= {"ok", "part"}
    same(published(video, str(tmp_path)), joined)


@pytest.mark.parametrize(
    "number", [5, 8, *(pytest.param(n, marks=pytest.mark.slow) for n in (6, 7, 9, 10, 11))]
)
def test_killed_while_joining(worker, video, joined, tmp_path, number):
    """In the last window: its part is written in four changes, after the attempt's record."""
    output, parts = str(tmp_path), segments(video)
    for segment in parts[:2]:
        run(worker, segment, output)
    with killed_before(number), pytest.raises(Killed):
        run(worker, parts[2], output)
    assert run(worker, parts[2], output).outcome == "ok"
    same(published(video, output), joined)


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("w1of3.tracks.parquet", False),
        ("w1of3.json", False),
        ("w1of3.json", True),
        ("w0of3.looks.parquet", True),
    ],
)
def test_a_part_that_is_lost_or_damaged(worker, video, joined, tmp_path, name, lost):
    output, parts = str(tmp_path), segments(video)
    for segment in parts[:2]:
        run(worker, segment, output)
    path = tmp_path / "parts" / video.video_id / name
    if lost:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-3] + b"abc")
    result = run(worker, parts[2], output)
    if lost and name.endswith(".json"):  # as if it had not been tracked yet
        assert result.outcome == "part"
        assert run(worker, parts[1], output).outcome == "ok"
        same(published(video, output), joined)
    else:
        assert result.outcome == "ok"
        same(published(video, output), joined, f"window {name[1]} was tracked again")


def test_a_window_of_another_overlap_is_tracked_again(worker, video, joined, tmp_path):
    output, parts = str(tmp_path), segments(video)
    run(worker, parts[0], output)
    run(worker, parts[1], output, overlap_s=0.8)
    assert run(worker, parts[2], output, overlap_s=OVERLAP_S).outcome == "ok"
    same(published(video, output), joined, "w1of3.json has another length or overlap")


def test_a_window_that_cannot_be_decoded(worker, video, whole, tmp_path, monkeypatch):
    real = windows_module.track_part

    def track_part(tracker, info, settings, place, *arguments, **options):
        if place.decoding is not None:
            raise DecodeError("no key frame")
        real(tracker, info, settings, place, *arguments, **options)

    monkeypatch.setattr(windows_module, "track_part", track_part)
    told, output = [], str(tmp_path)
    worker.notice = told.append
    outcomes = [run(worker, segment, output).outcome for segment in segments(video)]
    assert outcomes == ["part", "part", "ok"]
    found = published(video, output)
    assert found[:2] == whole[:2]
    assert found[2]["split_mode"] == "resume" and len(told) == 1
    assert "tracked in one pass, because its windows do not fit: window 1" in found[2]["repairs"]
    assert "no key frame" in found[2]["repairs"] and not part_names(video, output)


def test_a_clock_that_restarts_is_tracked_in_one_pass(worker, tmp_path):
    recording = write_video(tmp_path / "one.ts", frames=60).read_bytes()
    (tmp_path / "twice.ts").write_bytes(recording * 2)
    video = replace(info_of(tmp_path / "twice.ts"), duration_s=4.8)
    one = tracked(worker, video, str(tmp_path / "one"), "video")
    outcomes = [run(worker, s, str(tmp_path / "two")).outcome for s in segments(video)]
    two = published(video, str(tmp_path / "two"))
    assert outcomes[-1] == "ok" and two[:2] == one[:2]
    assert "windows do not fit" in two[2]["repairs"]


@pytest.mark.parametrize(
    "share", [0.5, *(pytest.param(share, marks=pytest.mark.slow) for share in (0.2, 0.8))]
)
def test_a_header_that_promises_more_than_there_is(worker, tmp_path, share):
    options = {"movflags": "faststart"}
    path = cut(write_video(tmp_path / "v.mp4", frames=FRAMES, container_options=options), share)
    video = info_of(path)
    one = tracked(worker, video, str(tmp_path / "one"), "video")
    outcomes = [run(worker, s, str(tmp_path / "two")).outcome for s in segments(video)]
    two = published(video, str(tmp_path / "two"))
    assert outcomes == ["part", "part", "partial"]
    for name in ("status", "error", "frames_decoded", "frames_tracked", "video_s"):
        assert two[2][name] == one[2][name], name
    assert rows(two[1]).time_s.tolist() == rows(one[1]).time_s.tolist()


def test_a_window_that_kills_its_worker_buries_the_video(worker, video, tmp_path):
    output, parts = str(tmp_path), segments(video)
    run(worker, parts[0], output)
    for _ in range(2):
        with killed_before(2), pytest.raises(Killed):
            run(worker, parts[1], output)
    result = run(worker, parts[1], output, limits=Limits(max_attempts=2))
    assert (result.outcome, result.message[:32]) == ("dead", "w1of3 has killed its worker 2 ti")
    assert run(worker, parts[2], output).outcome == "dead"  # at once
    assert not part_names(video, output) and not list_stems(f"{output}/videos")


def test_storage_that_fails_in_a_window_blames_no_video(worker, video, tmp_path, monkeypatch):
    def unreachable(*arguments, **options):
        raise storage.StorageError("connection lost")

    with monkeypatch.context() as patch:
        patch.setattr(windows_module, "track_part", unreachable)
        assert run(worker, segments(video)[1], str(tmp_path)).outcome == "unread"
    assert not list_stems(f"{tmp_path}/dead_letters")
