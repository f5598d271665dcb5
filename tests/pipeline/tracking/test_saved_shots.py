"""A pass that is saved and gone on with has the same cuts, in a stretch and region as in all."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.archive.plan import Segment
from pipeline.storage.schema import table_uri
from pipeline.tracking.track_video import TrackSettings
from pipeline.tracking.worker import VideoTracker
from pipeline.video.limits import Limits
from pipeline.video.only import OnlyConfig
from tests import videos
from tests.pipeline.tracking.passes import (
    Killed,
    info_of,
    killed_before,
    part_names,
    run,
    tracked,
)
from tests.pipeline.video.test_cuts import HEIGHT, WIDTH, view

CUTS = [13, 24, 50]
"""Two of them right after a part, at 0.5 s and at 1 s and a little."""
PART = OnlyConfig(start_s=0.2, end_s=2.3, region=(((0.2, 0.4), (0.8, 0.4), (0.8, 1), (0.2, 1)),))


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    def shown(number, width, height):
        scene = sum(number >= cut for cut in CUTS)
        return np.repeat(view(scene, number)[:height, :width].astype(np.uint8)[..., None], 3, 2)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(videos, "picture", shown)
        path = tmp_path_factory.mktemp("edited") / "v.mp4"
        return info_of(videos.write_video(path, frames=60, width=WIDTH, height=HEIGHT))


@pytest.fixture(scope="module")
def worker(weights):
    limits = Limits(max_attempts=99)
    return VideoTracker(TrackSettings(str(weights), config_hash="c", window=1, limits=limits))


@pytest.mark.parametrize("only", [OnlyConfig(), PART], ids=["all", "part"])
def test_killed_after_each_part_the_rows_are_those_of_one_pass(worker, edited, tmp_path, only):
    whole = tracked(worker, edited, str(tmp_path / "whole"), mode="video", only=only)
    assert [round(25 * time_s) for time_s in whole[2]["cut_times_s"]] == CUTS
    output = str(tmp_path / "parts")
    for _ in range(3):
        with killed_before(5), pytest.raises(Killed):
            run(worker, Segment(edited, "resume"), output, split_seconds=0.5, only=only)
    assert part_names(edited, output)
    found = tracked(worker, edited, output, split_seconds=0.5, only=only)
    assert found[:2] == whole[:2]
    assert found[2] == whole[2] | {"split_mode": "resume"}
    frames = pq.read_table(table_uri(output, "frames", edited.video_id)).to_pandas()
    assert not frames.encoded[frames.cut].eq(False).any()
    if only is PART:
        assert frames.time_s.iloc[[0, -1]].tolist() == pytest.approx([0.2, 2.28])
