"""A pass that is saved and gone on with anywhere has the rows of one pass, to the last byte."""

import re
import time
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import Phase, example, given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

from model.track.checkpoint import CheckpointMetadata, save_tracker
from model.track.tracker import Tracker
from pipeline.archive.plan import Segment
from pipeline.storage import files as storage
from pipeline.storage.errors import StorageError
from pipeline.storage.files import list_stems, write_atomic
from pipeline.tracking import parts, track_video, whole_video
from pipeline.tracking import worker as worker_module
from pipeline.tracking.attempts import Ledger
from pipeline.tracking.parts import clear_parts
from pipeline.tracking.track_video import TrackSettings
from pipeline.tracking.worker import VideoTracker
from pipeline.video.errors import DeadlineError, PlaceLost
from pipeline.video.limits import Limits
from tests import videos
from tests.pipeline.tracking.passes import (
    Killed,
    info_of,
    killed_before,
    part_names,
    run,
    tracked,
)
from tests.tiny import TINY
from tests.videos import write_video

FRAMES = 60
EVERY_S = 0.5
TRIES = 1000


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return info_of(write_video(tmp_path_factory.mktemp("video") / "v.mp4", frames=FRAMES))


@pytest.fixture(scope="module")
def worker(weights):
    limits = Limits(max_attempts=TRIES)
    return VideoTracker(TrackSettings(str(weights), config_hash="c", window=4, limits=limits))


@pytest.fixture(scope="module")
def whole(worker, video, tmp_path_factory):
    return tracked(worker, video, str(tmp_path_factory.mktemp("whole")), mode="video")


@pytest.fixture
def notices(worker, monkeypatch):
    told = []
    monkeypatch.setattr(worker, "notice", told.append)
    return told


def same(found, whole, repairs=None):
    assert found[:2] == whole[:2]
    assert found[2] | {"repairs": None} == whole[2] | {"split_mode": "resume"}
    assert re.fullmatch(repairs, found[2]["repairs"]) if repairs else not found[2]["repairs"]


def killed_after_parts(worker, video, output, count, **changes):
    """Leave so many parts; each takes three changes, and the attempt one before them."""
    with killed_before(2 + 3 * count), pytest.raises(Killed):
        run(worker, Segment(video, "resume"), output, split_seconds=EVERY_S, **changes)
    assert sum(name.endswith(".safetensors") for name in part_names(video, output)) == count


# Seconds between two parts, and the changes of the output at which one attempt after another dies.
KILLS = st.floats(0.05, 3.0), st.lists(st.integers(1, 30), max_size=4)


@with_settings(max_examples=2, phases=[Phase.explicit, Phase.generate])
@example(0.2, [13, 9, 14])
@given(*KILLS)
def test_killed_anywhere(worker, video, whole, tmp_path_factory, seconds, kills):
    killed_and_gone_on_with(worker, video, whole, tmp_path_factory, seconds, kills)


@pytest.mark.slow
@with_settings(max_examples=60, phases=[Phase.explicit, Phase.generate])
@given(*KILLS)
def test_killed_anywhere_many_times(worker, video, whole, tmp_path_factory, seconds, kills):
    killed_and_gone_on_with(worker, video, whole, tmp_path_factory, seconds, kills)


def killed_and_gone_on_with(worker, video, whole, tmp_path_factory, seconds, kills):
    output = str(tmp_path_factory.mktemp("killed"))
    for number in kills:
        with killed_before(number), suppress(Killed):  # it may have fewer changes
            run(worker, Segment(video, "resume"), output, split_seconds=seconds)
    same(tracked(worker, video, output), whole)
    clear_parts(output, list_stems(f"{output}/videos"))  # it may have died just before
    assert not part_names(video, output)


@pytest.mark.parametrize(
    "changes", [{"sample_fps": 10.0}, {"skip_still": False}, {"max_gap_s": 5.0}]
)
def test_other_ways_to_take_frames(worker, video, tmp_path, changes):
    one = tracked(worker, video, str(tmp_path / "one"), "video", **changes)
    killed_after_parts(worker, video, str(tmp_path / "two"), 2, **changes)
    same(tracked(worker, video, str(tmp_path / "two"), **changes), one)
    run(worker, Segment(video), str(tmp_path), sample_fps=None, skip_still=True, max_gap_s=0.0)


def test_a_part_knows_how_many_frames_were_carried(worker, tmp_path, monkeypatch):
    """It is saved in a quiet stretch, because a window has at most 32 frames for each to encode."""
    with monkeypatch.context() as patch:
        picture = videos.picture
        patch.setattr(videos, "picture", lambda n, *size: picture(min(n, 5), *size))
        quiet = info_of(videos.write_video(tmp_path / "quiet.mkv", frames=130, rate=60))
    counts = []
    real = track_video.track_shots

    def track_shots(*arguments):
        counts.append(arguments[-1])
        return real(*arguments)

    monkeypatch.setattr(track_video, "track_shots", track_shots)
    one_by_one = {"window": 1}
    whole = tracked(worker, quiet, str(tmp_path / "one"), "video", **one_by_one)
    every, counts[:] = list(counts), []
    killed_after_parts(worker, quiet, str(tmp_path / "two"), 1, **one_by_one)
    counts.clear()
    same(tracked(worker, quiet, str(tmp_path / "two"), **one_by_one), whole)
    assert counts == every[-len(counts) :] and counts[0][0] > 32 > len(counts)
    run(worker, Segment(quiet), str(tmp_path), window=4)


def test_goes_on_from_the_last_part(worker, video, whole, tmp_path, monkeypatch):
    output = str(tmp_path)
    killed_after_parts(worker, video, output, 3)
    reports = []
    monkeypatch.setattr(worker, "report", lambda name, place: reports.append(place.frames))
    same(tracked(worker, video, output), whole)
    assert EVERY_S * 3 * 25 < reports[0] < FRAMES
    assert len(list_stems(f"{output}/videos")) == 1 and not part_names(video, output)


def test_a_part_clears_the_attempts_before(worker, video, tmp_path):
    output, limits = str(tmp_path), Limits(max_attempts=2)

    def attempt():
        return run(worker, Segment(video, "resume"), output, split_seconds=EVERY_S, limits=limits)

    # Its record, the three files of a part, the removal of the record before; then it dies.
    for changes in (4, 5, 5):
        with killed_before(changes + 1), pytest.raises(Killed):
            attempt()
        assert len(Ledger(output, "r", False).entries(video.video_id)) == 1
    with killed_before(3), pytest.raises(Killed):  # in the part itself
        attempt()
    result = attempt()
    assert (result.outcome, "killed its worker 2 times" in result.message) == ("dead", True)
    assert not part_names(video, output)  # of no use beside a dead letter
    run(worker, Segment(video), output, limits=Limits(max_attempts=TRIES))


def spoil_json(data):
    """Another digit in what the commit of a part says."""
    place = data.index(b"frames_decoded")
    return data[:place] + data[place:].replace(b"0", b"1", 1)


@pytest.mark.parametrize(
    ("name", "spoil", "reason"),
    [
        ("2.state.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1]), "is damaged"),
        ("2.state.safetensors", lambda data: data[:300], "is damaged"),
        ("2.state.safetensors", spoil_json, "is damaged"),
        ("2.tracks.parquet", lambda data: data + b"0", "is damaged, or of another run"),
        ("2.frames.parquet", None, "is missing"),
    ],
)
def test_a_part_that_is_damaged_or_missing(
    worker, video, whole, tmp_path, notices, name, spoil, reason
):
    output = str(tmp_path)
    killed_after_parts(worker, video, output, 3)
    path = tmp_path / "parts" / video.video_id / name
    if spoil is None:
        path.unlink()
    else:
        path.write_bytes(spoil(path.read_bytes()))
    same(tracked(worker, video, output), whole, rf".*{name} {reason}.* went on from part 1")
    assert len(notices) == 1 and f"{name} {reason}" in notices[0]


def test_a_first_part_that_is_lost_is_the_start(worker, video, whole, tmp_path, notices):
    output = str(tmp_path)
    killed_after_parts(worker, video, output, 3)
    (tmp_path / "parts" / video.video_id / "0.tracks.parquet").unlink()
    same(tracked(worker, video, output), whole, r".*0\.tracks\.parquet is missing.* the start")
    assert len(notices) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"config_hash": "other"}, "config_hash is 'other', not 'c'"),
        ({"model_sha256": "0" * 64}, "model_sha256 is '0000"),
    ],
)
def test_a_part_of_another_run(worker, video, whole, tmp_path, changes, reason):
    output, own = str(tmp_path), {name: getattr(worker.settings, name) for name in changes}
    killed_after_parts(worker, video, output, 2, **changes)
    same(tracked(worker, video, output, **own), whole, rf".*{reason}.* went on from the start")


def test_a_part_of_another_version(worker, video, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr(parts, "PART_FORMAT", 0)
        killed_after_parts(worker, video, str(tmp_path), 2)
    same(tracked(worker, video, str(tmp_path)), whole, ".*format is 0, not 3.*")


def test_a_state_of_another_model(worker, video, tmp_path_factory, notices):
    """Of a model with other shapes under the same name, as a mistake could make it."""
    folder = tmp_path_factory.mktemp("wide")
    wide = replace(TINY, dim=64)
    save_tracker(folder / "w.safetensors", Tracker(wide).eval(), CheckpointMetadata(model=wide))
    other = VideoTracker(
        TrackSettings(str(folder / "w.safetensors"), config_hash="c", window=4, runtime="torch")
    )
    killed_after_parts(other, video, str(folder), 2)
    tracked(worker, video, str(folder))
    assert re.search(r"the state of the tracks is of another model: content is .*64", notices[0])


def test_a_place_that_the_file_does_not_have(worker, video, whole, tmp_path, monkeypatch):
    real, lost = worker_module.track_video, []

    def track_video(*arguments):
        place = arguments[5]
        if place.frames and len(lost) < 2:
            lost.append(place.frames)
            raise PlaceLost("no such frame")
        return real(*arguments)

    killed_after_parts(worker, video, str(tmp_path), 3)
    monkeypatch.setattr(worker_module, "track_video", track_video)
    same(tracked(worker, video, str(tmp_path)), whole, r".*no such frame.* went on from part 0")
    assert lost == sorted(lost, reverse=True)


def test_output_that_fails_ends_the_run_and_blames_no_video(worker, video, tmp_path, monkeypatch):
    def full(uri, source):
        raise StorageError("cannot write: No space left on device")

    monkeypatch.setattr(storage, "publish", full)
    result = run(worker, Segment(video, "resume"), str(tmp_path), split_seconds=EVERY_S)
    assert (result.outcome, "No space left" in result.message) == ("unwritten", True)
    assert not list_stems(f"{tmp_path}/dead_letters")


def test_deadline_is_for_what_is_left(worker, video, tmp_path, monkeypatch):
    limits = replace(worker.settings.limits, deadline_base_s=100.0, deadline_frame_s=1.0)
    killed_after_parts(worker, video, str(tmp_path), 3, limits=limits)
    left = []

    def windows(tracker, info, settings, spent, deadline, place, *arguments):
        left.append((deadline - time.monotonic(), place.frames))
        raise DeadlineError("late")
        yield

    monkeypatch.setattr(whole_video, "tracked_windows", windows)
    result = run(worker, Segment(video, "resume"), str(tmp_path), limits=limits)
    assert (result.outcome, left[0][0]) == ("dead", pytest.approx(160 - left[0][1], abs=5))
    assert f"late: {160 - left[0][1]} s are allowed" in result.message
    assert not part_names(video, str(tmp_path))
    run(worker, Segment(video), str(tmp_path), limits=Limits(max_attempts=TRIES))


def test_parts_of_finished_videos_are_removed(tmp_path):
    for name in ("done", "open"):
        write_atomic(f"{tmp_path}/parts/{name}/0.tracks.parquet", b"rows")
    clear_parts(str(tmp_path), {"done", "other"})
    assert list_stems(f"{tmp_path}/parts", "") == {"open"}
    clear_parts(str(tmp_path / "none"), {"done"})
