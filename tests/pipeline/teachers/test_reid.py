"""A teacher of people: each labelled person's clean picture, normalised, seen alone."""

import os
from pathlib import Path

import pytest
import torch

from model.teach.config import TeacherConfig
from model.teach.teacher import TeacherError
from pipeline.teachers.load import load_object_teacher, load_teacher, teacher_id
from pipeline.teachers.reid import ReidTeacher
from tests.pipeline.teachers.networks import tiny_reid, tiny_yolox

pytest.importorskip("onnx")

COLOURS = torch.tensor([[200.0, 30.0, 90.0], [10.0, 250.0, 120.0], [60.0, 60.0, 60.0]])


def people():
    """Two frames with three people of one colour each, on white."""
    images = torch.full((2, 3, 64, 96), 255, dtype=torch.uint8)
    frames = torch.tensor([1, 0, 1])
    boxes = torch.tensor([[10.0, 8, 22, 40], [30, 20, 45, 60], [60, 4, 70, 30]])
    for frame, box, colour in zip(frames, boxes, COLOURS, strict=True):
        x1, y1, x2, y2 = (int(v) for v in box)
        images[frame, :, y1:y2, x1:x2] = colour.to(torch.uint8)[:, None, None]
    return images, frames, boxes


def test_each_person_is_seen_alone_and_normalised(tmp_path):
    teacher = ReidTeacher(str(tiny_reid(tmp_path / "tiny.onnx")))
    found = teacher(*people())
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    expected = (COLOURS / 255 - mean) / std
    # The border of a picture is blended with what is beside the box.
    assert found.shape == (3, 3)
    torch.testing.assert_close(found, expected, atol=0.35, rtol=0)
    images, frames, boxes = people()
    assert torch.equal(teacher(images, frames[1:2], boxes[1:2]), found[1:2])
    assert teacher(images, frames[:0], boxes[:0]).shape == (0, 3)


def test_it_is_for_labels_alone(tmp_path):
    path = str(tiny_reid(tmp_path / "tiny.onnx"))
    config = TeacherConfig("reid", path)
    teacher = load_object_teacher(config)
    assert teacher.info.id == teacher_id(config) and teacher.info.id.startswith("reid/")
    assert teacher.info.dim == 3
    assert load_object_teacher(TeacherConfig()) is None
    with pytest.raises(TeacherError, match="no labels here; it is for vsdmot train"):
        load_teacher(config)


def test_another_network_is_refused(tmp_path):
    with pytest.raises(TeacherError, match=r"a network from \(1, 3, height, width\)"):
        ReidTeacher(str(tiny_yolox(tmp_path / "yolox.onnx")[0]))
    with pytest.raises(TeacherError, match="no file"):
        ReidTeacher(str(tmp_path / "none.onnx"))


def test_osnet_knows_a_person_again():
    if not (data := os.environ.get("VSDMOT_DATA")):
        pytest.skip("VSDMOT_DATA is not set: make test DATA=FOLDER")
    teacher = ReidTeacher(str(Path(data) / "weights" / "osnet_x0_25_msmt17.onnx"))
    assert teacher.info.dim == 512
    images, frames, boxes = people()
    first, second, third = teacher(images, frames, boxes)
    again = teacher((images.float() * 0.9).byte(), frames, boxes)[0]
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(first, again, dim=0) > max(
        cosine(first, second, dim=0), cosine(first, third, dim=0)
    )
