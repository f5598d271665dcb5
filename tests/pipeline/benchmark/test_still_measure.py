"""The cost of skipping still frames: the quiet video, its truth, and who counts as found."""

import numpy as np
import pytest

from jobs.measure_still import still_table
from pipeline.benchmark import still_measure
from pipeline.benchmark.still_measure import (
    found,
    quiet_order,
    quiet_truth,
    still_row,
    write_quiet,
)
from pipeline.datasets.boxes import Boxes
from pipeline.datasets.mot import read_sequence
from pipeline.datasets.synthetic import make_synthetic
from pipeline.tracking.track_video import TrackSettings, open_tracker
from pipeline.video.decode import iterate_frames
from tests.pipeline.video.test_decode import look


def test_each_second_comes_after_four_of_its_first_frame():
    assert quiet_order(3, 2.0) == [0] * 8 + [0, 1] + [2] * 4 + [2]
    assert len(quiet_order(70, 25.0)) == 5 * 70


def test_truth_follows_the_order():
    gt = Boxes.of([1, 1, 2], [7, 8, 7], [[0, 0, 5, 9], [20, 0, 5, 9], [1, 0, 5, 9]])
    truth = quiet_truth(gt, [0, 0, 1])
    assert truth.frame.tolist() == [1, 1, 2, 2, 3]
    assert truth.track_id.tolist() == [7, 8, 7, 8, 7]
    assert truth.xywh[:, 0].tolist() == [0, 20, 0, 20, 1]


def test_a_person_is_found_by_a_fifth_of_their_boxes():
    box = [10, 10, 20, 40]
    gt = Boxes.of([*range(1, 11)] * 2, [1] * 10 + [2] * 10, [box] * 10 + [[90, 10, 20, 40]] * 10)
    tracks = Boxes.of([1, 2, 3], [5, 6, 6], [box, box, [88, 10, 20, 40]])
    assert found(gt, tracks) == {1}
    assert found(gt, tracks[:1]) == set()


@pytest.fixture(scope="module")
def sequence(tmp_path_factory):
    make_synthetic(tmp_path_factory.mktemp("data"), sequences=1, frames=12, people=3)
    return read_sequence(next(tmp_path_factory.getbasetemp().glob("data*/SYNTH-01")))


def test_quiet_video_is_skipped_and_scored(sequence, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(still_measure, "_QUIET", 6)
    order = write_quiet(sequence, 12, tmp_path / "a.mp4")
    pictures = [pixels for _, _, pixels in iterate_frames(look(tmp_path / "a.mp4"))]
    assert len(pictures) == len(order) == 84
    clean = [pixels for _, _, pixels in iterate_frames(look(sequence.video))]
    for shown, pixels in zip(order, pictures, strict=True):
        nearest = min(range(12), key=lambda n: np.abs(clean[n].astype(int) - pixels).mean())
        assert abs(nearest - shown) <= 1
    settings = TrackSettings(str(weights))
    truth = quiet_truth(sequence.gt, order)
    row, problem = still_row(open_tracker(settings), tmp_path / "a.mp4", "quiet", truth, settings)
    assert problem is None
    assert row["frames"] == 84 and 15 < row["encoded"] < 60
    assert row["people_lost"] <= row["people_off"]
    assert still_table([row]).row_count == 1


def test_video_in_which_all_moves_is_tracked_once(sequence, weights, monkeypatch):
    real, runs = still_measure.track_video, []
    monkeypatch.setattr(
        still_measure, "track_video", lambda *given: runs.append(given) or real(*given)
    )
    settings = TrackSettings(str(weights))
    row, _ = still_row(open_tracker(settings), sequence.video, "moving", sequence.gt, settings)
    assert len(runs) == 1 and row["encoded"] == row["frames"] == 12
    assert row["hota_on"] == row["hota_off"] and row["people_lost"] == 0
