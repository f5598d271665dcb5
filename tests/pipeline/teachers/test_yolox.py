"""A YOLOX as teacher: the tensors it is asked for are those of its graph, on any canvas."""

import os
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from model.teach.teacher import TeacherError
from pipeline.teachers.yolox import YoloxTeacher
from pipeline.teachers.yolox_graph import find_pyramid
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
    assert find_pyramid(str(tiny[0])) == ("pyramid0", "pyramid1", "pyramid2")


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (96, 64)])
def test_dense_and_pooled_features_are_the_pyramid(tiny, size):
    path, weights = tiny
    teacher = YoloxTeacher(str(path))
    assert (teacher.info.levels, teacher.info.pooled_dim) == (WIDTHS, sum(WIDTHS))
    height, width = size
    images, valid = frames(2, *size), torch.tensor([size, (32, 40)])
    pyramid = tiny_pyramid(weights, padded_bgr(images, valid))
    found = teacher(images, valid)
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


def test_the_pyramid_of_yolox_nano_is_found():
    if not (data := os.environ.get("VSDMOT_DATA")):
        pytest.skip("VSDMOT_DATA is not set: make test DATA=FOLDER")
    teacher = YoloxTeacher(str(Path(data) / "weights" / "yolox_nano_416.onnx"))
    assert teacher.info.levels == (64, 128, 256)
    found = teacher(frames(1, 256, 416), torch.tensor([[256, 416]]))
    assert found.dense.shape == (1, 448, 16, 26) and found.dense.std() > 0.1
