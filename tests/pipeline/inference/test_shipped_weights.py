"""The shipped student tracks a real clip in OpenVINO as in PyTorch: same ids, same boxes."""

from itertools import islice

import pytest
import torch

from model.track.checkpoint import file_sha256, pretrained_weights
from model.track.tracker import Tracker
from pipeline.datasets.sample import write_sample
from pipeline.inference.runtime import open_model
from pipeline.storage.files import list_videos
from pipeline.tracking.track_video import batch_window
from pipeline.video.decode import FrameStream
from pipeline.video.limits import Limits
from pipeline.video.probe import probe

FRAMES = 32
BOX_PX, SCORE = 0.01, 1e-4


@pytest.mark.slow
@torch.inference_mode()
def test_shipped_weights_give_the_same_tracks(tmp_path):
    weights = pretrained_weights("nano")
    write_sample(str(tmp_path))
    info = probe(next(list_videos(str(tmp_path / "carphone_pristine.mp4"))))
    in_torch, _ = Tracker.load(weights)
    config = in_torch.config
    other = open_model("openvino", "cpu", config, file_sha256(weights), lambda: in_torch).model
    canvas = config.input_height, config.input_width
    with FrameStream(info, *canvas, 32, Limits(), None) as stream:
        inputs = batch_window(list(islice(stream, FRAMES)), stream.letterbox)
    ours, theirs = (
        student.track(student.encode(*inputs), student.initial_state(1))[0]
        for student in (in_torch, other)
    )
    seen = 0
    for mine, found in zip(ours, theirs, strict=True):
        assert torch.equal(found.track_id, mine.track_id)
        there = mine.track_id >= 0
        seen += int(there.sum())
        torch.testing.assert_close(found.boxes[there], mine.boxes[there], rtol=0, atol=BOX_PX)
        torch.testing.assert_close(found.scores[there], mine.scores[there], rtol=0, atol=SCORE)
    assert seen > FRAMES // 2, "the test tracks nothing"
