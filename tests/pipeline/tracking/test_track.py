"""Tracking one video, and the worker that publishes its rows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from model.net.letterbox import Letterbox
from model.track.checkpoint import CheckpointError, CheckpointMetadata, save_tracker
from model.track.frames import FrameResult
from pipeline.archive.plan import Segment
from pipeline.storage import schema
from pipeline.storage.files import StorageError, list_stems, list_videos, read_bytes, write_atomic
from pipeline.tracking import spool
from pipeline.tracking import worker as worker_module
from pipeline.tracking.tables import VideoTables, window_rows
from pipeline.tracking.track_video import TrackSettings, open_tracker
from pipeline.tracking.whole_video import track_video
from pipeline.tracking.worker import VideoTracker
from pipeline.trust.model import FoundTrust
from pipeline.video.decode import Frame
from pipeline.video.probe import probe
from tests.pipeline.trust.test_sums import any_model
from tests.tiny import TINY, tiny_tracker
from tests.videos import cut, write_video


def info_of(path):
    return probe(next(list_videos(str(path))))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return info_of(write_video(tmp_path_factory.mktemp("video") / "a b'é.mp4", frames=19))


@pytest.fixture
def settings(weights, tmp_path):
    return TrackSettings(str(weights), str(tmp_path / "out"), config_hash="c")


def tracked(video, settings, report=None):
    """The rows of `tracks`, those of `frames`, and that of `videos`."""
    with VideoTables(video) as tables:
        row = track_video(open_tracker(settings), video, settings, tables, report)
        read = [pq.read_table(table.finished()) for table in (tables.tracks, tables.frames)]
        return *read, row


def test_tables_of_a_video(settings, video):
    reports = []
    tracks, frames, row = tracked(video, settings, lambda name, place: reports.append(place.frames))
    assert reports == [0, 8, 16, 19]
    assert tracks.schema.equals(schema.TRACKS, check_metadata=True)
    assert frames.schema.equals(schema.FRAMES, check_metadata=True)
    frames, tracks = frames.to_pandas(), tracks.to_pandas()
    assert frames.frame_index.tolist() == list(range(19))
    assert np.allclose(frames.time_s, np.arange(19) / 25)
    assert frames.quality.between(0, 1).all()
    assert len(tracks)
    order = tracks[["frame_index", "track_id"]]
    assert order.equals(order.sort_values(["frame_index", "track_id"], ignore_index=True))
    assert not order.duplicated().any()
    assert (tracks[["w", "h"]] > 0).all(axis=None)
    assert (tracks.x >= 0).all()
    assert (tracks.x + tracks.w <= video.width + 1e-3).all()
    assert (tracks.y + tracks.h <= video.height + 1e-3).all()
    assert set(tracks.class_name) == {"person"}
    counts = tracks.groupby("frame_index").size().reindex(range(19), fill_value=0)
    assert frames.num_tracks.tolist() == counts.tolist()
    assert (row["status"], row["frames_decoded"], row["frames_expected"]) == ("ok", 19, 19)
    assert row["num_tracks"] == tracks.track_id.nunique()
    assert row["track_length_max"] == tracks.groupby("track_id").size().max()
    assert row["video_s"] == pytest.approx(19 / 25)
    assert row["low_quality_share"] == pytest.approx((frames.quality < 0.5).mean())


def test_window_does_not_change_the_rows(settings, video):
    many, one = (tracked(video, replace(settings, window=n))[0].to_pandas() for n in (8, 1))
    assert many[["frame_index", "track_id"]].equals(one[["frame_index", "track_id"]])
    assert np.allclose(many[["x", "y", "w", "h", "score"]], one[["x", "y", "w", "h", "score"]],
                       atol=1e-2)  # fmt: skip


def test_thresholds_override_the_checkpoint(settings, video, tmp_path):
    path = tmp_path / "quiet.safetensors"  # random weights: every score lies near 0.01
    save_tracker(path, tiny_tracker(), CheckpointMetadata(model=TINY))
    quiet = replace(settings, weights=str(path))
    eager = replace(quiet, birth_threshold=0.0, keep_threshold=0.0)
    assert len(tracked(video, eager)[0]) > 0
    _, _, row = tracked(video, quiet)
    assert (row["num_tracks"], row["track_length_max"]) == (0, None)
    result = VideoTracker(quiet).track(Segment(video))  # no track is a result, too
    assert (result.outcome, result.num_tracks) == ("ok", 0)


def test_boxes_come_out_in_source_pixels_and_never_empty():
    box = Letterbox(100, 200, 64, 64)  # canvas: 64 wide, 32 high, padding below
    boxes = torch.tensor([[[16.0, 8, 32, 16], [2, 40, 20, 60], [0, 0, 64, 32], [1, 1, 2, 2]]])
    result = FrameResult(
        track_id=torch.tensor([[7, 8, 3, -1]]),
        boxes=boxes,
        scores=torch.full((1, 4), 0.5),
        labels=torch.zeros(1, 4).long(),
        semantic_weight=torch.full((1, 4), 0.3),
        frame_weight=torch.tensor([0.4]),
        detections_boxes=boxes,
        detections_scores=boxes[..., 0],
        detections_labels=boxes[..., 0].long(),
    )
    encoded = type("E", (), {"statistics": torch.zeros(1, 5), "quality": torch.ones(1)})
    frame = Frame(4, 0.5, np.zeros((64, 64, 3), np.uint8), np.zeros((8, 64, 64), np.uint8))
    rows = window_rows([frame], encoded, [result], box, ("person",))
    assert rows.tracks["track_id"].tolist() == [3, 7]  # 8 lies in the padding, -1 is no track
    found = np.stack([rows.tracks[name] for name in "xywh"], axis=1)
    assert np.allclose(found, [[0, 0, 200, 100], [50, 25, 50, 25]], atol=0.5)
    assert rows.frames["num_tracks"].tolist() == [2]


def test_worker_publishes_once(settings, video):
    # As left by a worker that died before its commit row.
    write_atomic(schema.table_uri(settings.output, "tracks", video.video_id), b"half")
    worker = VideoTracker(settings)
    first = worker.track(Segment(video))
    path = schema.table_uri(settings.output, "videos", video.video_id)
    before = pq.read_table(path)
    assert before.schema.equals(schema.VIDEOS, check_metadata=True)
    assert before.to_pylist()[0]["write_s"] > 0
    tracks = pq.read_table(schema.table_uri(settings.output, "tracks", video.video_id))
    assert tracks.to_pandas().track_id.nunique() == first.num_tracks
    assert worker.track(Segment(video)) == first
    assert pq.read_table(path).equals(before)


def test_worker_publishes_what_its_tracks_are(settings, video):
    """A row for each track, with trust in it if there is a model of trust."""

    def summary(name, **changes):
        output = f"{settings.output}-{name}"
        VideoTracker(replace(settings, output=output, **changes)).track(Segment(video))
        tracks, found = (
            pq.read_table(schema.table_uri(output, table, video.video_id)).to_pandas()
            for table in ("tracks", "track_summary")
        )
        lengths = tracks.groupby("track_id").size()
        assert found.track_id.tolist() == lengths.index.tolist()
        assert found.boxes.tolist() == lengths.tolist()
        return found

    plain = summary("plain")
    assert plain.trust.isna().all() and not plain.rejoined.any() and not plain.seams.any()
    trusted = summary("trusted", trust=FoundTrust(any_model()))
    assert trusted.trust.between(0, 1).all()
    assert trusted.drop(columns="trust").equals(plain.drop(columns="trust"))


def test_same_video_gives_the_same_bytes(settings, video):
    """A repetition after a crash overwrites rows with their like; a reader never sees a mixture."""

    def published(output):
        VideoTracker(replace(settings, output=output)).track(Segment(video))
        return [
            read_bytes(schema.table_uri(output, table, video.video_id))
            for table in ("tracks", "frames", "track_summary")
        ]

    assert published(f"{settings.output}1") == published(f"{settings.output}2")


def test_full_temporary_disk_is_no_fault_of_the_video(settings, video, monkeypatch):
    full = Path("/dev/full")
    monkeypatch.setattr(spool.tempfile, "TemporaryFile", lambda **_: full.open("w+b"))
    result = VideoTracker(settings).track(Segment(video))
    assert result.outcome == "unwritten"
    assert "No space left on device; free some space there, or set TMPDIR" in result.message
    assert list_stems(f"{settings.output}/dead_letters") == set()
    assert list_stems(f"{settings.output}/tracks") == set()


def test_truncated_video_is_partial(settings, tmp_path):
    options = {"movflags": "faststart"}
    path = cut(write_video(tmp_path / "cut.mp4", frames=40, container_options=options), 0.6)
    result = VideoTracker(settings).track(Segment(info_of(path)))
    row = pq.read_table(f"{settings.output}/videos/{result.video_id}.parquet").to_pylist()[0]
    assert result.outcome == row["status"] == "partial"
    assert 0 < row["frames_decoded"] < row["frames_expected"] == 40
    assert row["error"]


@pytest.mark.parametrize("error", [RuntimeError("went wrong"), SystemExit(3)])
def test_what_a_video_raises_becomes_a_dead_letter(settings, video, monkeypatch, error):
    def broken(*arguments):
        raise error

    worker = VideoTracker(settings)
    monkeypatch.setattr(worker_module, "track_video", broken)
    assert worker.track(Segment(video)).outcome == "dead"
    row = pq.read_table(f"{settings.output}/dead_letters/{video.video_id}.parquet").to_pylist()[0]
    assert (row["stage"], row["kind"], row["attempts"]) == ("track", "poison", 1)
    assert row["message"].startswith(f"{type(error).__name__}: {error} (at ")
    assert "broken" in row["message"]
    assert list_stems(f"{settings.output}/videos") == set()


def test_storage_failing_is_no_fault_of_the_video(settings, video, monkeypatch):
    def unreachable(*arguments):
        raise StorageError("connection lost")

    worker = VideoTracker(settings)
    monkeypatch.setattr(worker_module, "track_video", unreachable)
    assert worker.track(Segment(video)).outcome == "unread"
    assert list_stems(f"{settings.output}/dead_letters") == set()


def test_other_weights_than_the_run_began_with_are_refused(settings, monkeypatch):
    monkeypatch.setattr(worker_module, "_LOAD_PAUSE_S", 0)
    with pytest.raises(CheckpointError, match="is not the file"):
        VideoTracker(replace(settings, model_sha256="0" * 64))
