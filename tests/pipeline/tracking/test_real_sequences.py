"""Real sequences that are ended and taken up anywhere have the rows of one pass, to the last byte.

Of the longer validation sequences the first `MOST` frames are tracked.
"""

import math
import os
import random
from pathlib import Path

import pytest

from model.track.checkpoint import pretrained_weights
from pipeline.archive.plan import Segment
from pipeline.tracking.track_video import TrackSettings
from pipeline.tracking.worker import VideoTracker
from pipeline.video.limits import Limits
from pipeline.video.only import OnlyConfig
from tests.pipeline.tracking.passes import (
    Killed,
    info_of,
    no_change_once,
    part_names,
    published,
)

WINDOW = 4  # of frames; small, so that there are many places to end at
ENDS = 3
MOST = 60


def videos():
    """The video files of the validation sequences, each named as its sequence."""
    if not (data := os.environ.get("VSDMOT_DATA")):
        reason = "VSDMOT_DATA is not set: make test-slow DATA=FOLDER"
        return [pytest.param(None, marks=pytest.mark.skip(reason))]
    files = sorted(Path(data, "sequences", "val").glob("*/video.*"))
    found = [pytest.param(path, id=path.parent.name) for path in files]
    return found or [pytest.param(None, marks=pytest.mark.skip(f"no sequences/val in {data}"))]


def worker(video, output, seconds=1.0, report=None):
    """A new worker with the shipped student, which saves its place every so many seconds."""
    settings = TrackSettings(
        str(pretrained_weights("nano")),
        str(output),
        config_hash="c",
        window=WINDOW,
        only=OnlyConfig(end_s=MOST / video.fps),
        split_seconds=seconds,
        first_picture=(video.height, video.width),
        limits=Limits(max_attempts=ENDS + 1),
    )
    return VideoTracker(settings, report)


def ended(video, output, seconds, number):
    """Track a video on to the n-th window of its frames, and die as by a SIGKILL."""
    reached = []

    def report(name, place):
        if math.ceil(place.frames / WINDOW) == number:
            reached.append(place.frames)
            raise Killed

    with no_change_once(lambda: reached), pytest.raises(Killed):
        worker(video, output, seconds, report).track(Segment(video, "resume"))


@pytest.mark.slow
@pytest.mark.parametrize("path", videos())
def test_ended_and_taken_up_anywhere(path, tmp_path):
    video, one, many = info_of(path), str(tmp_path / "one"), str(tmp_path / "many")
    assert worker(video, one).track(Segment(video)).outcome == "ok"
    whole = published(video, one)
    assert whole[2]["num_tracks"]

    draw = random.Random(path.parent.name)
    last = math.ceil(whole[2]["frames_tracked"] / WINDOW)
    ends = draw.sample(range(1, last + 1), min(ENDS, last))
    for number in sorted(ends):
        ended(video, many, draw.uniform(0.02, 0.3) * whole[2]["video_s"], number)

    saved = part_names(video, many)
    began, left = [], worker(video, many, report=lambda name, place: began.append(place.frames))
    assert left.track(Segment(video, "resume")).outcome == "ok"
    if any(name.endswith(".state.safetensors") for name in saved):
        assert all(frames > WINDOW for frames in began)  # not at the start
    found = published(video, many)
    assert found[:2] == whole[:2]
    assert found[2] == whole[2] | {"split_mode": "resume"}
    assert not part_names(video, many)
