"""Teachers by their settings: what each name gives, and how a wrong one is refused."""

import json

import pytest
import torch

from model.teach.config import TeacherConfig
from model.teach.scaled import ScaledTeacher
from model.teach.student_teacher import StudentTeacher
from model.teach.teacher import TeacherError
from model.teach.tower import ImageTower
from pipeline.teachers.load import follow_average, load_teacher, teacher_id
from tests.tiny import tiny_tracker


def test_a_name_gives_a_teacher_whose_id_is_known_before(weights):
    student = tiny_tracker()
    for config, kind in (
        (TeacherConfig("self", ""), StudentTeacher),
        (TeacherConfig("self"), StudentTeacher),
        (TeacherConfig("student", str(weights)), StudentTeacher),
        (TeacherConfig("student", str(weights), 1.5), ScaledTeacher),
        (TeacherConfig("self", "", 2.0), ScaledTeacher),
        (TeacherConfig(), ImageTower),
    ):
        teacher = load_teacher(config, student=student)
        assert isinstance(teacher, kind)
        assert teacher.info.id == teacher_id(config)
        assert teacher.info.licence not in ("", "not recorded")


def test_a_scaled_student_still_follows_the_average():
    student = tiny_tracker()
    teacher = load_teacher(TeacherConfig("self", "", 1.5), student=student)
    moved = tiny_tracker(seed=1).state_dict()
    images, valid = torch.zeros(1, 3, 96, 144), torch.tensor([[64, 96]])
    before = teacher(images, valid)
    follow_average(teacher, moved)
    after = teacher(images, valid)
    assert before.dense.shape == after.dense.shape == (1, teacher.info.dense_dim, 4, 6)
    assert not torch.allclose(before.dense, after.dense)


def test_self_is_no_file_and_exists_in_a_training_alone(weights):
    with pytest.raises(TeacherError, match=r"self exists during a training only.*=student"):
        load_teacher(TeacherConfig("self", ""))
    with pytest.raises(TeacherError, match="self has no weights of its own"):
        teacher_id(TeacherConfig("self", str(weights)))
    with pytest.raises(ValueError, match=r"scale: 3\.0 was given"):
        TeacherConfig(scale=3.0)


CLIP = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 224, "layers": 3, "width": 64, "patch_size": 16, "head_width": 32},
    "text_cfg": {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1},
}
"""CLIP's ViT-B-16, but narrow and of three layers."""


def check_clip(config, width):
    """A CLIP gives features of its width on the canvases of training."""
    torch.manual_seed(0)
    teacher = load_teacher(config)
    assert teacher.info.levels == (width,)
    for size in ((256, 416), (384, 640)):
        images = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
        found = teacher(images, torch.tensor([[size[0], size[1] - 48]]))
        assert found.dense.shape == (1, width, size[0] // 16, size[1] // 16)
        assert found.pooled.shape == (1, teacher.info.pooled_dim)
        assert found.valid[0, :, :-3].all() and not found.valid[0, :, -3:].any()
        assert bool(found.dense.isfinite().all()) and float(found.dense.std()) > 0


def test_a_clip_runs_on_the_canvases_of_training(tmp_path):
    path = tmp_path / "narrow-clip.json"
    path.write_text(json.dumps(CLIP))
    check_clip(TeacherConfig(str(path), "random"), 64)


@pytest.mark.slow
def test_the_real_clip_does_too_with_random_weights():
    check_clip(TeacherConfig("ViT-B-16", "random"), 768)
