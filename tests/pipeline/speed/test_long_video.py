"""A long recording in each way on Ray, and the model of ten hours against hand-made numbers."""

import json

import pytest

from jobs.bench import main as bench_job
from model.track.checkpoint import CheckpointMetadata, save_tracker
from pipeline.speed.archives.join_time import Joined, fitted
from pipeline.speed.archives.long_time import Costs, Recording, finish
from pipeline.speed.archives.long_video import WAYS, Way, _check, modelled
from pipeline.speed.footage import moving_video
from pipeline.speed.one_core import MeasureError
from pipeline.speed.tiny import TINY
from pipeline.storage.files import list_videos
from pipeline.video.decode import iterate_frames
from pipeline.video.probe import probe
from tests.tiny import tiny_tracker
from tests.videos import read_number, write_video

# 100 s of 10 frames a second in 10 windows; a worker tracks 20 frames a second.
RECORDING = Recording(seconds=100, fps=10, window_s=10, overlap_s=2)
COSTS = Costs(frames_s=20, join_window_s=0.3, join_frame_s=0.002)


@pytest.mark.parametrize(
    ("workers", "rounds", "seconds"),
    [
        # A window takes 12 s x 10 / 20 = 6 s, joining 10 x 0.3 + 1000 x 0.002 = 5 s.
        (1, 10, 65),
        (2, 5, 35),
        (8, 2, 17),
        (64, 1, 11),
    ],
)
def test_the_last_round_and_the_joining_decide(workers, rounds, seconds):
    found = finish(RECORDING, COSTS, workers)
    assert (found.windows, found.rounds) == (10, rounds)
    assert found.joining_s == pytest.approx(5)
    assert found.seconds == pytest.approx(seconds)
    assert found.speed_up == pytest.approx(50 / seconds)  # one pass takes 50 s


def test_a_remainder_makes_windows_longer():
    recording = Recording(seconds=105, fps=10, window_s=50, overlap_s=2)
    found = finish(recording, Costs(10, 0, 0), workers=2)
    assert (found.windows, found.rounds) == (2, 1)
    assert found.seconds == pytest.approx(52.5 + 2)


def test_ten_hours_have_the_default_windows():
    found = modelled(Costs(25, 0, 0), fps=25)
    eight = found["10 hours by the model, workers: 8"]
    assert (eight["windows"], eight["rounds"]) == (60, 8)
    assert eight["seconds"] == pytest.approx(8 * 604)
    assert found["10 hours by the model, workers: 64"]["speed_up"] == pytest.approx(36000 / 604)


def test_costs_of_joining_are_told_apart_by_two_lengths():
    # 4 windows of 0.5 s, and 0.01 s a frame.
    found = fitted(Joined(4, 100, 300, 3.0), Joined(4, 500, 1000, 7.0))
    assert (found.window_s, found.frame_s) == (pytest.approx(0.5), pytest.approx(0.01))
    assert found.rows_frame == 2


def test_the_recording_goes_forwards_and_backwards(tmp_path):
    clip = probe(next(list_videos(str(write_video(tmp_path / "a.mp4", frames=4)))))
    moving_video(tmp_path / "long.mp4", clip, 0.4)
    info = probe(next(list_videos(str(tmp_path / "long.mp4"))))
    seen = [read_number(picture) for _, _, picture in iterate_frames(info)]
    assert seen == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3]


def test_a_recording_that_went_another_way_is_no_measurement():
    row = {
        "status": "ok", "split_mode": "resume", "segments": 1, "error": None,
        "repairs": "tracked in one pass, because its windows do not fit",
    }  # fmt: skip
    _check(row, Way("resume", 1), [None])
    with pytest.raises(MeasureError, match=r"parallel, 2 workers.*windows do not fit"):
        _check(row, Way("parallel", 2), [None] * 4)


@pytest.mark.slow
def test_each_way_is_measured_on_ray(tmp_path):
    video = write_video(tmp_path / "a.mp4", frames=30)
    weights = tmp_path / "lively.safetensors"
    save_tracker(weights, tiny_tracker(lively=True), CheckpointMetadata(model=TINY))
    given = f"video={video}", f"weights={weights}", f"output={tmp_path / 'out'}", "long_s=8"
    assert bench_job([*given, "measures=[long]"]) == 0
    long = json.loads((tmp_path / "out" / "bench.json").read_text())["measures"]["long"]
    assert list(long["readings"]) == [str(way) for way in WAYS]
    for (reading,) in long["readings"].values():
        assert reading["frames"] == 200
        assert reading["wall_s"] > 0 and reading["parts"]["actors"] > 0
    assert [r["clock"] for r in long["ratios"]] == ["wall", "core"] * 3
    assert long["facts"]["frames tracked twice"] == pytest.approx(0.075, abs=0.001)
    assert long["facts"]["joining"]["rows a frame"] > 0.5
    assert long["facts"]["10 hours by the model, workers: 8"]["speed_up"] > 1
