"""What is tracked of a video: a stretch, a region, people of some size or class."""

import json
import re
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.cli import ConfigError, parse_config
from model.track.checkpoint import CheckpointError
from pipeline.archive.plan import Segment, Split, plan
from pipeline.tracking.config import TrackConfig
from pipeline.tracking.settings import worker_settings
from pipeline.tracking.track_video import TrackSettings
from pipeline.tracking.worker import VideoTracker
from pipeline.video.only import ALL, OnlyConfig, Wanted, tracked_picture
from pipeline.video.picture import Cropper
from pipeline.video.region import Region
from tests.pipeline.tracking.test_track import info_of, tracked
from tests.videos import TURN_CLOCKWISE, set_matrix, write_video

WHOLE = (((0, 0), (1, 0), (1, 1), (0, 1)),)
PART = (((0.3, 0.5), (0.7, 0.45), (0.75, 0.9), (0.35, 0.85)),)
NUMBERS = ["x", "y", "w", "h", "score", "semantic_weight"]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("only") / "v.mp4"
    return info_of(write_video(path, frames=30, width=240, height=144))


@pytest.fixture
def settings(weights, tmp_path):
    return TrackSettings(str(weights), str(tmp_path / "out"), skip_still=False)


def rows(info, settings, **only):
    tracks, frames, row = tracked(info, replace(settings, only=OnlyConfig(**only)))
    return tracks.to_pandas(), frames.to_pandas(), row


def feet(tracks):
    return np.stack([tracks.x + tracks.w / 2, tracks.y + tracks.h], axis=1)


def test_defaults_change_nothing(settings, video):
    """Nor do a region of the whole picture and limits that all people keep."""
    standard, frames, _ = (t.to_pandas() if hasattr(t, "schema") else t
                           for t in tracked(video, settings))  # fmt: skip
    assert len(standard) and Wanted.of(OnlyConfig(), video) == ALL
    for only in ({"region": WHOLE}, {"classes": ("person",), "end_s": 99.0, "min_height": 1e-3}):
        tracks, other_frames, _ = rows(video, settings, **only)
        assert tracks.equals(standard) and other_frames.equals(frames)


def test_people_who_are_too_small_get_no_rows(settings, video):
    every, frames, _ = rows(video, settings)
    least = float(every.h.median())
    tracks, fewer, _ = rows(video, settings, min_height=least)
    assert 0 < len(tracks) < len(every)
    assert tracks.equals(every[every.h >= least].reset_index(drop=True))
    counts = tracks.groupby("frame_index").size().reindex(range(30), fill_value=0)
    assert fewer.num_tracks.tolist() == counts.tolist()
    assert fewer.quality.equals(frames.quality)


def test_classes_are_kept_by_name():
    boxes = np.array([[0, 0, 5, 9], [1, 1, 6, 9.0]])
    wanted = Wanted(classes=frozenset({"car"}))
    assert wanted.keeps(boxes, ["person", "car"]).tolist() == [False, True]
    assert ALL.keeps(boxes, ["person", "car"]).all()


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_region_has_the_rows_of_a_video_of_its_crop(settings, tmp_path, turn):
    """Both in pixels of the whole picture, and of those who stand in the polygon."""
    stored = write_video(tmp_path / "v.mp4", frames=12, width=240, height=144)
    info = info_of(set_matrix(stored, TURN_CLOCKWISE[turn]))
    region = Region.of(PART, info.height, info.width)
    crop = region.crop
    assert crop is not None
    cropper = Cropper(crop, info.height, info.width)
    path = tmp_path / "crop.mp4"
    with av.open(str(stored)) as whole, av.open(str(path), "w") as out:
        parts = [cropper.cut(frame) for frame in whole.decode(video=0)]
        stream = out.add_stream("libx264", rate=25, options={"qp": "0", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = parts[0].width, parts[0].height, "yuv420p"
        for number, part in enumerate(parts):
            part.pts, part.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(part))
        out.mux(stream.encode())
    set_matrix(path, TURN_CLOCKWISE[turn])
    alone = info_of(path)
    assert (alone.height, alone.width) == (crop.height, crop.width)
    settings = replace(settings, birth_threshold=0.2, keep_threshold=0.1)
    every, frames, _ = rows(alone, settings)
    every.x += np.float32(crop.left)
    every.y += np.float32(crop.top)
    expected = every[region.holds(feet(every))].reset_index(drop=True)
    tracks, in_region, _ = rows(info, settings, region=PART)
    assert 0 < len(tracks) < len(every)
    assert tracks[["frame_index", "track_id"]].equals(expected[["frame_index", "track_id"]])
    assert np.allclose(tracks[NUMBERS], expected[NUMBERS], atol=1e-3)
    measured = ["quality", "sharpness", "noise", "blockiness", "luma", "contrast"]
    assert np.allclose(in_region[measured], frames[measured], atol=1e-6)
    assert region.holds(feet(tracks)).all()


def test_a_crop_may_have_a_smaller_canvas(video):
    wide = (((0, 0.8), (1, 0.8), (1, 1), (0, 1)),)
    assert tracked_picture(OnlyConfig(region=wide), video) == (144 - 78, 240)
    far = (((0, 0), (9000, 0), (9000, 9000)),)
    assert tracked_picture(OnlyConfig(region=far), video) == (144, 240)


def test_a_stretch_has_only_its_frames_and_reads_no_others(settings, video):
    tracks, frames, row = rows(video, settings, start_s=0.5, end_s=0.9)
    _, all_frames, _ = rows(video, settings)
    inside = all_frames[(all_frames.time_s >= 0.5) & (all_frames.time_s < 0.9)]
    assert frames.time_s.tolist() == inside.time_s.tolist()
    assert frames.quality.to_numpy() == pytest.approx(inside.quality.to_numpy(), abs=1e-5)
    assert frames.frame_index.tolist() == list(range(len(inside)))
    assert (row["frames_tracked"], row["status"]) == (len(inside), "ok")
    assert set(tracks.time_s) <= set(inside.time_s) and len(tracks)


@pytest.mark.parametrize(
    ("only", "words"),
    [
        ({"region": (((0, 0), (500, 0), (500, 100)),)}, "only.region reaches to x=500, y=100"),
        ({"start_s": 60.0}, ""),
    ],
)
def test_a_video_without_anything_that_is_wanted_is_a_dead_letter(
    settings, video, weights, tmp_path, only, words
):
    wanted = replace(settings, only=OnlyConfig(**only))
    result = VideoTracker(wanted).track(Segment(video))
    assert result.outcome == "dead" and words in result.message
    [file] = (tmp_path / "out" / "dead_letters").iterdir()
    row = pq.read_table(file).to_pylist()[0]
    assert row["kind"] == "input" and words in row["message"]


def test_what_is_given_decides_results_and_defaults_leave_the_hash(weights, tmp_path):
    def made(**only):
        return worker_settings(
            TrackConfig("in", str(tmp_path), str(weights), only=OnlyConfig(**only))
        )

    settings, deciding = made()
    assert not [name for name in deciding if name.startswith("only.")]
    hashes = {settings.config_hash}
    for only in (
        {"start_s": 3}, {"end_s": 3}, {"region": WHOLE}, {"min_height": 3}, {"classes": ("person",)}
    ):  # fmt: skip
        settings, deciding = made(**only)
        assert [n for n in deciding if n.startswith("only.")] == [f"only.{next(iter(only))}"]
        assert settings.only == OnlyConfig(**only)
        json.dumps(deciding)
        hashes.add(settings.config_hash)
    assert len(hashes) == 6
    assert made(start_s=3)[0].config_hash == made(start_s=3.0)[0].config_hash


def test_a_region_is_given_on_the_command_line(tmp_path):
    def given(*arguments):
        return parse_config(TrackConfig, ["in", str(tmp_path), *arguments]).only

    found = given("only.region=[[[0.1,0.2],[0.9,0.2],[1,1]],[[0,0],[1,0],[0,1]]]", "only.end_s=9")
    first, second = ((0.1, 0.2), (0.9, 0.2), (1, 1)), ((0, 0), (1, 0), (0, 1))
    assert found == OnlyConfig(end_s=9, region=(first, second))
    for wrong, words in (
        ("only.region=[[0.1,0.2],[0.9,0.2],[1,1]]", "each a list of 2, each a number"),
        ("only.region=[[[0.1,0.2],[0.9,0.2]]]", "polygon 1 of 1 has 2 corners"),
        ("only.region=[[[0.1,0.2],[0.9,0.2],[1.1,1]]]", "all numbers are at most 1"),
        ("only.end_s=0", "more than 0"),
    ):
        with pytest.raises(ConfigError, match=re.escape(words)):
            given(wrong)
    with pytest.raises(ConfigError, match="is not after"):
        given("only.start_s=5", "only.end_s=4")


def test_an_unknown_class_is_refused_by_name(weights, tmp_path):
    config = TrackConfig("in", str(tmp_path), str(weights), only=OnlyConfig(classes=("cat",)))
    with pytest.raises(CheckpointError, match=r"only\.classes: .* has no class cat; it has person"):
        worker_settings(config)


def test_a_stretch_is_not_cut_into_windows(video):
    for mode in ("auto", "parallel"):
        split = Split(mode, 0.2, workers=9, whole_videos=False)
        segments, ways = plan([video], split)
        assert [s.mode for s in segments] == ["resume"]
        assert "a part" in ways[video.video_id].reason
