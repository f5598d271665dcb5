"""A YOLOX as teacher: the tensors it is asked for are those of its graph, on any canvas."""

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from model.net.config import STRIDES
from model.teach.config import TeacherConfig
from model.teach.teacher import TeacherError
from pipeline.teachers.load import load_teacher
from pipeline.teachers.yolox import YoloxTeacher
from pipeline.teachers.yolox_graph import find_tensors
from tests.pipeline.teachers.networks import WIDTHS, tiny_pyramid, tiny_reid, tiny_yolox

pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_yolox(tmp_path_factory.mktemp("yolox") / "tiny.onnx")


def frames(count, height, width):
    generator = torch.Generator().manual_seed(0)
    shape = (count, 3, height, width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def padded_bgr(images, valid):
    pixels = torch.full_like(images, 114)
    for out, image, (height, width) in zip(pixels, images, valid.tolist(), strict=True):
        out[:, :height, :width] = image.flip(0)[:, :height, :width]
    return pixels.float()


def test_the_tensors_are_found_by_structure(tiny):
    found = find_tensors(str(tiny[0]))
    assert found.pyramid == ("pyramid0", "pyramid1", "pyramid2")
    assert found.grids == ("grid0", "grid1", "grid2")


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (96, 64)])
def test_dense_and_pooled_features_are_the_pyramid(tiny, size):
    path, weights = tiny
    teacher = YoloxTeacher(str(path))
    assert (teacher.info.levels, teacher.info.pooled_dim) == (WIDTHS, sum(WIDTHS))
    height, width = size
    images, valid = frames(2, *size), torch.tensor([size, (32, 40)])
    pyramid, _ = tiny_pyramid(weights, padded_bgr(images, valid))
    found = teacher(images, valid)
    assert found.detections is None
    grid = (height // 16, width // 16)
    assert found.dense.shape == (2, sum(WIDTHS), *grid)
    fine, same, coarse = found.dense.split(WIDTHS, dim=1)
    torch.testing.assert_close(fine, F.avg_pool2d(pyramid[0], 2), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(same, pyramid[1], rtol=1e-4, atol=1e-4)
    assert coarse.shape[2:] == grid
    # The second picture covers two rows and three columns of positions.
    assert found.valid[0].all() and found.valid[1].sum() == 6
    mean = pyramid[1][1, :, :2, :3].mean((1, 2))
    torch.testing.assert_close(found.pooled[1].split(WIDTHS)[1], mean, rtol=1e-4, atol=1e-4)
    alone = teacher(images[1:], valid[1:])
    assert torch.equal(alone.dense, found.dense[1:])


def test_detections_lie_at_the_positions_of_the_students_head(tiny):
    path, weights = tiny
    teacher = load_teacher(TeacherConfig("yolox", str(path)), detections=True)
    images, valid = frames(1, 64, 96), torch.tensor([[64, 80]])
    _, grids = tiny_pyramid(weights, padded_bgr(images, valid))
    found = teacher(images, valid).detections
    assert found.logits.shape == (1, 8 * 12 + 4 * 6 + 2 * 3, 1)
    first = 8 * 12 + 4 * 6  # of stride 32
    box, score = grids[2][0, :4, 1, 2], grids[2][0, 4, 1, 2] * grids[2][0, 5, 1, 2]
    last = first + 5  # row 1, column 2
    assert found.centres[last].tolist() == [80, 48] and int(found.strides[last]) == 32
    middle, half = (torch.tensor([2, 1]) + box[:2]) * 32, box[2:].exp() * 16
    expected = torch.cat([middle - half, middle + half])
    torch.testing.assert_close(found.boxes[0, last], expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found.logits[0, last, 0].sigmoid(), score, rtol=1e-4, atol=1e-5)
    assert found.valid.shape == (1, first + 6) and not found.valid[0, 10:12].any()
    assert {int(s) for s in found.strides.unique()} == set(STRIDES)


def test_what_is_no_yolox_is_refused(tiny, tmp_path, monkeypatch):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a network")
    with pytest.raises(TeacherError, match=r"broken\.onnx (cannot be read|is no YOLOX)"):
        YoloxTeacher(str(broken))
    with pytest.raises(TeacherError, match=r"no YOLOX with raw grid output \(output is made by"):
        YoloxTeacher(str(tiny_reid(tmp_path / "reid.onnx")))
    with pytest.raises(TeacherError, match=r"no file; .*teacher\.pretrained=FILE\.onnx"):
        YoloxTeacher(str(tmp_path / "none.onnx"))
    with pytest.raises(TeacherError, match=r"canvas of 40 x 64 pixels.*multiples of 32"):
        YoloxTeacher(str(tiny[0]))(frames(1, 40, 64), torch.tensor([[40, 64]]))
    monkeypatch.setattr("pipeline.teachers.onnx_files.find_spec", lambda name: None)
    with pytest.raises(TeacherError, match="needs the package onnx; pip install onnx"):
        YoloxTeacher(str(tiny[0]))


def test_yolox_nano_finds_whom_its_detector_finds():
    if not (data := os.environ.get("VSDMOT_DATA")):
        pytest.skip("VSDMOT_DATA is not set: make test DATA=FOLDER")
    from pipeline.trackers.detectors import open_detector
    from pipeline.video.canvas import letterboxed

    path = Path(data) / "weights" / "yolox_nano_416.onnx"
    package = Path(find_spec("matplotlib").submodule_search_locations[0])
    photograph = package / "mpl-data" / "sample_data" / "grace_hopper.jpg"
    teacher = YoloxTeacher(str(path), detections=True)
    assert teacher.info.levels == (64, 128, 256)
    image, size = letterboxed(np.asarray(Image.open(photograph).convert("RGB")), 416, 416)
    boxes, scores = open_detector(path)(np.asarray(image.permute(1, 2, 0)))
    found = teacher(image[None], torch.tensor([size])).detections
    best = int(found.logits[0, :, 0].argmax())
    assert float(found.logits[0, best, 0].sigmoid()) == pytest.approx(scores.max(), abs=1e-3)
    x, y, w, h = boxes[scores.argmax()]
    np.testing.assert_allclose(found.boxes[0, best].clamp(0, 416), [x, y, x + w, y + h], atol=0.5)
