"""A run in Python: the frames that tracking gave, as objects of supervision and FiftyOne."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from jobs.track import main as track_job
from pipeline import track
from pipeline.exchange.errors import ExportError
from pipeline.exchange.loaders import fiftyone_samples, saved_frames
from tests.pipeline.exchange.tables import Video, write_tables
from tests.videos import write_video


def test_saved_frames_are_those_of_tracking(weights, tmp_path):
    (tmp_path / "in").mkdir()
    path = write_video(tmp_path / "in" / "gate.mp4", frames=12)
    assert track_job([
        f"input={tmp_path}/in", f"output={tmp_path}/run", f"weights={weights}",
        "cluster.workers=0", "mlflow.enabled=false", "report=false", "still.skip=off",
    ]) == 0  # fmt: skip
    saved = list(saved_frames(f"{tmp_path}/run", "gate.mp4"))
    seen = list(track(path, weights))
    assert len(saved) == len(seen) == 12 and sum(map(len, seen))
    for ours, theirs in zip(saved, seen, strict=True):
        assert (ours.index, ours.time_s) == (theirs.index, theirs.time_s)
        assert ours.ids.tolist() == theirs.ids.tolist()
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=0.01)
        detections = ours.to_supervision()
        assert detections.tracker_id.tolist() == theirs.ids.tolist()
        np.testing.assert_allclose(detections.xyxy, theirs.to_supervision().xyxy, atol=0.01)


def test_frames_without_people_are_there_and_names_must_be_clear(tmp_path):
    rows = ((4, 2, (1.0, 2.0, 3.0, 4.0)), (4, 1, (5.0, 6.0, 7.0, 8.0)))
    run = write_tables(tmp_path, [Video("a/x.mp4", rows=rows), Video("b/x.mp4")])
    frames = list(saved_frames(run, "a/x.mp4"))
    assert [len(frame) for frame in frames] == [0, 0, 0, 0, 2, 0, 0, 0, 0, 0]
    assert frames[4].ids.tolist() == [1, 2] and frames[4].class_ids.tolist() == [0, 0]
    assert len(frames[0].to_supervision()) == 0
    with pytest.raises(ExportError, match=r"2 videos are called x\.mp4: v0 \(a/x\.mp4\), v1"):
        next(saved_frames(run, "x.mp4"))


class Sample(SimpleNamespace):
    """In place of FiftyOne's: frames that are set by their number."""

    def __init__(self, **fields):
        super().__init__(frames={}, **fields)


@pytest.fixture
def stand_in(monkeypatch):
    """Stand-ins for the classes of FiftyOne; test_fiftyone.py has the real ones."""
    names = ("Frame", "Detections", "Detection", "VideoMetadata")
    classes = SimpleNamespace(Sample=Sample, **dict.fromkeys(names, SimpleNamespace))
    monkeypatch.setitem(sys.modules, "fiftyone", classes)


def test_samples_of_fiftyone_have_shares_of_the_picture_and_frames_from_1(tmp_path, stand_in):
    rows = ((4, 2, (32.0, 24.0, 64.0, 48.0)),)
    run = write_tables(tmp_path, [Video("x.mp4", rows=rows)])
    (sample,) = fiftyone_samples(run)
    assert (sample.filepath, sample.media_type) == ("/nowhere/video.mp4", "video")
    assert list(sample.frames) == list(range(1, 11))
    (one,) = sample.frames[5].tracks.detections
    assert (one.label, one.index, one.confidence) == ("person", 2, 0.5)
    np.testing.assert_allclose(one.bounding_box, [0.1, 0.1, 0.2, 0.2])


def test_samples_of_fiftyone_know_the_video_without_ffprobe(tmp_path, stand_in):
    (sample,) = fiftyone_samples(write_tables(tmp_path, [Video("x.mp4", times=(0.04,) * 10)]))
    assert vars(sample.metadata) == {
        "frame_width": 320, "frame_height": 240, "frame_rate": 25.0, "total_frame_count": 10,
        "duration": 0.08,
    }  # fmt: skip


def test_samples_of_fiftyone_have_paths_of_this_machine(tmp_path, stand_in):
    """FiftyOne takes s3://cams/x.mp4 for WORKING_FOLDER/s3:/cams/x.mp4, and shows nothing."""
    videos = [Video("a/x.mp4", uri="file:///cams/a/x.mp4"), Video("b.mp4", uri="memory://b.mp4")]
    run = write_tables(tmp_path, videos)
    local, *_ = fiftyone_samples(run, ["a/x.mp4"])
    assert local.filepath == "/cams/a/x.mp4"
    with pytest.raises(ExportError, match=r"memory://b\.mp4: FiftyOne .* give .* archive="):
        list(fiftyone_samples(run))
    mounted = list(fiftyone_samples(run, archive="/mnt"))
    assert [sample.filepath for sample in mounted] == ["/mnt/a/x.mp4", "/mnt/b.mp4"]


def test_without_fiftyone_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(ImportError, match="pip install fiftyone"):
        next(fiftyone_samples(write_tables(tmp_path, [Video("x.mp4")])))
