"""The shipped student in OpenVINO: ids and boxes of PyTorch, and no more memory than estimated."""

import subprocess
import sys
from itertools import islice

import pytest
import torch

from model.track.checkpoint import file_sha256, pretrained_weights, read_metadata
from model.track.tracker import Tracker
from pipeline.datasets.sample import write_sample
from pipeline.inference.runtime import open_model
from pipeline.storage.files import list_videos
from pipeline.tracking.memory_estimate import estimate
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


_PEAK = """
import sys, torch
from pathlib import Path
from model.track.checkpoint import file_sha256, pretrained_weights, read_metadata
from model.track.tracker import Tracker
from pipeline.inference.runtime import open_model

weights, window = pretrained_weights("nano"), 8
config = read_metadata(weights).model
student = open_model(
    sys.argv[1], "cpu", config, file_sha256(weights), lambda: Tracker.load(weights)[0]
).model
torch.set_num_threads(1)

def peak():
    # Not of getrusage, which begins with the memory of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])

before, size = peak(), (config.input_height, config.input_width)
images = torch.zeros(window, 3, *size, dtype=torch.uint8)
with torch.inference_mode():
    encoded = student.encode(
        images, torch.tensor([size] * window), torch.zeros(window, 8, 64, 64, dtype=torch.uint8)
    )
    student.track(encoded, student.initial_state(1))
print(peak(), peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_a_window_takes_no_more_memory_than_estimated(runtime):
    ran = subprocess.run(
        [sys.executable, "-c", _PEAK, runtime], capture_output=True, text=True, check=True
    )
    whole, window = (int(text) for text in ran.stdout.split()[-2:])
    config = read_metadata(pretrained_weights("nano")).model
    need = estimate(config, 8, 32, [], Limits(), in_openvino=runtime == "openvino")
    assert window <= need.encode
    assert whole <= need.process + need.encode
