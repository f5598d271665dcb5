"""Peers on known detections, and the detectors on real pictures where their weights lie."""

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("trackers")

from pipeline.benchmark.metrics import tracking_scores
from pipeline.datasets.boxes import Boxes
from pipeline.datasets.mot import read_gt
from pipeline.trackers.detectors import DetectorError, open_detector
from pipeline.trackers.peers import PEERS, track_detections


def walkers(frames: int = 30) -> Boxes:
    frame = np.repeat(np.arange(1, frames + 1), 2)
    identity = np.tile([1, 2], frames)
    x = np.where(identity == 1, 2.0 * frame, 300 - 2.0 * frame)
    xywh = np.stack([x, 40.0 + 0 * x, 20 + 0 * x, 50 + 0 * x], axis=1)
    return Boxes.of(frame, identity, xywh)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("scale", [0.9, 40.0])
def test_peers_follow_people_whatever_the_scale_of_the_scores(peer, scale):
    gt = walkers()
    detections = Boxes.of(gt.frame, -1, gt.xywh, scale)
    tracks, seconds = track_detections(peer, detections, 30, 25.0, 0.5)
    scores = tracking_scores({"a": (gt, tracks)})[0]["a"]
    assert scores.idf1 > 85
    assert scores.id_switches == 0
    assert seconds > 0
    assert tracks.track_id.min() >= 1


@pytest.mark.parametrize("peer", PEERS)
def test_no_detections_and_weak_ones_make_no_tracks(peer):
    gt = walkers()
    for given in (gt[:0], Boxes.of(gt.frame, -1, gt.xywh, 0.05)):
        assert len(track_detections(peer, given, 30, 25.0, 0.5)[0]) == 0


@pytest.mark.parametrize(
    ("file", "runtime"),
    [
        ("yolox_nano_416.onnx", "onnxruntime"),
        ("person-detection-retail-0013.xml", "openvino"),
    ],
)
def test_a_detector_finds_the_people_of_a_real_frame(file, runtime):
    pytest.importorskip(runtime)
    if not (data := os.environ.get("VSDMOT_DATA")):
        pytest.skip("VSDMOT_DATA is not set: make test DATA=FOLDER")
    path, clip = Path(data, "weights", file), Path(data, "sequences", "val", "TUD-Campus")
    from pipeline.benchmark.metrics import iou_matrix
    from pipeline.video.by_index import read_frames

    frame = read_frames(str(clip / "video.mp4"), [0], 640, 480)[0]
    xywh, scores = open_detector(path)(frame)
    truth = read_gt(clip / "gt" / "gt.txt").at(1).xywh
    found = iou_matrix(truth, xywh[scores > 0.4]).max(axis=1) > 0.5
    assert found.mean() >= 0.6


def test_a_detector_that_is_none_is_refused(tmp_path):
    with pytest.raises(DetectorError, match="no such detector"):
        open_detector(tmp_path / "x.onnx")
    (tmp_path / "x.pt").write_bytes(b"")
    with pytest.raises(DetectorError, match=r"expected \.onnx"):
        open_detector(tmp_path / "x.pt")
    pytest.importorskip("onnxruntime")
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(DetectorError, match="cannot be opened"):
        open_detector(tmp_path / "x.onnx")
