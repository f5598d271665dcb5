"""The measure of the driver by the number of inputs, with few of them."""

import os

import pytest

from model.track.checkpoint import CheckpointMetadata, save_tracker
from model.track.tracker import Tracker
from pipeline.speed.archives import many_inputs
from pipeline.speed.footage import long_video
from pipeline.speed.tiny import TINY


@pytest.fixture
def places(tmp_path):
    long_video(tmp_path / "clip.mp4", 2, 2, 64, 96)
    weights = tmp_path / "tiny.safetensors"
    save_tracker(weights, Tracker(TINY).eval(), CheckpointMetadata(model=TINY))
    return tmp_path / "clip.mp4", weights


def test_a_first_run_finds_all_files_and_a_second_one_finds_them_done(
    places, tmp_path, monkeypatch
):
    clip, weights = places
    monkeypatch.setattr(many_inputs, "_FOLDER", 10)
    many_inputs._link(clip, tmp_path / "in", 25)
    assert len(list((tmp_path / "in").glob("camera */*.mp4"))) == 25
    passes = []
    for turn in range(2):
        passes.append(many_inputs._run(str(tmp_path / "in"), weights, tmp_path / "out"))
        if turn == 0:
            many_inputs._finish(tmp_path / "out")
    assert [one.videos for one in passes] == [25, 0]
    assert 0 < passes[0].first_video_s <= passes[0].seconds
    assert passes[1].first_video_s is None


def test_a_file_with_too_many_links_is_copied(places, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(31, "Too many links")

    monkeypatch.setattr(os, "link", refuse)
    many_inputs._linked(places[0], tmp_path / "copy.mp4")
    assert (tmp_path / "copy.mp4").read_bytes() == places[0].read_bytes()
