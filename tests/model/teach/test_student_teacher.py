"""A student as teacher: fixed from a file, or moving with the average of a training."""

from dataclasses import replace

import pytest
import torch

from model.learn.average import AveragedWeights
from model.net.quality import frame_statistics
from model.teach.student_teacher import average_teacher, load_student, student_id
from model.teach.teacher import TeacherError
from model.track.checkpoint import CheckpointMetadata, save_tracker
from tests.tiny import TINY, tiny_inputs, tiny_tracker


def features_of(teacher, frames=2):
    images, valid, _ = tiny_inputs(frames)
    return teacher(images, valid)


def test_a_file_teaches_what_the_student_sees_in_a_clean_picture(weights):
    tracker = tiny_tracker(lively=True)
    teacher = load_student(str(weights))
    images, valid, patches = tiny_inputs(2)
    with torch.no_grad():
        percept = tracker.describe(tracker.features(images, valid), frame_statistics(patches))
        clean = replace(percept, quality=torch.ones(2))
        expected, wanted = tracker.detect(clean), tracker.fuse(clean)[0]
    found = teacher(images, valid)
    assert teacher.info.levels == (TINY.dim,) * 3 and teacher.info.pooled_dim == TINY.semantic_dim
    fine, same, coarse = found.dense.split(TINY.dim, dim=1)
    torch.testing.assert_close(same, wanted[1])
    torch.testing.assert_close(fine, torch.nn.functional.avg_pool2d(wanted[0], 2))
    assert coarse.shape == same.shape
    torch.testing.assert_close(found.pooled, expected.scene)
    assert torch.equal(found.valid, percept.masks[1])


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (128, 160)])
def test_any_canvas_of_whole_strides_is_taken(weights, size):
    teacher = load_student(str(weights))
    height, width = size
    images = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    found = teacher(images, torch.tensor([size]))
    assert found.dense.shape == (1, 3 * TINY.dim, height // 16, width // 16)
    with pytest.raises(TeacherError, match="multiples of 32"):
        teacher(images[..., :-16], torch.tensor([size]))


def test_it_stays_frozen_and_what_it_says_is_a_target(weights):
    teacher = load_student(str(weights))
    assert teacher.train() is teacher and not any(m.training for m in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not features_of(teacher).dense.requires_grad


def test_the_average_is_followed_in_place_and_the_live_student_is_not():
    tracker = tiny_tracker()
    average = AveragedWeights(tracker)
    teacher = average_teacher(tracker)
    teacher.follow(average.values)
    before = features_of(teacher).dense
    with torch.no_grad():
        for parameter in tracker.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    torch.testing.assert_close(features_of(teacher).dense, before)
    average.update(0.5)
    moved = features_of(teacher).dense
    assert not torch.allclose(moved, before)
    copy = tiny_tracker()
    copy.load_state_dict(average.values)
    torch.testing.assert_close(moved, features_of(average_teacher(copy)).dense)
    # A resumed training replaces the values, not the tensors.
    average.load(tiny_tracker().state_dict())
    torch.testing.assert_close(features_of(teacher).dense, before)
    assert teacher.info.id == "self" and not any(p.requires_grad for p in teacher.parameters())


def test_the_id_is_that_of_the_content(weights, tmp_path):
    assert load_student(str(weights)).info.id == student_id(str(weights))
    other = tmp_path / weights.name
    save_tracker(other, tiny_tracker(seed=1), CheckpointMetadata(model=TINY))
    assert student_id(str(other)) != student_id(str(weights))
    assert student_id(str(weights)).startswith("student-tiny/")


def test_what_is_no_student_is_refused(tmp_path):
    with pytest.raises(TeacherError, match=r"nothing is no weights file.*teacher\.pretrained=FILE"):
        student_id("")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    with pytest.raises(TeacherError, match="not a readable safetensors file"):
        load_student(str(broken))
