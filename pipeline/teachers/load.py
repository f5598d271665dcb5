"""Teachers by their settings.

| `teacher.model` | `teacher.pretrained` |
|---|---|
| `self` | nothing: the student's averaged weights |
| `student` | weights file of a student, of any size |
| `yolox` | ONNX file of a YOLOX with raw grid output |
| `reid` | ONNX file of a network that describes people; teaches objects, so it needs labels |
| a model of open_clip or of `configs/teachers/` | a tag, a file, `package` or `random` |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.teach.config import REID, SELF, STUDENT, YOLOX, TeacherConfig
from model.teach.scaled import ScaledTeacher, scaled_id
from model.teach.student_teacher import (
    StudentTeacher,
    average_teacher,
    load_student,
    student_id,
)
from model.teach.teacher import ObjectTeacher, Teacher, TeacherError
from model.teach.tower import PACKAGE, load_tower, tower_id

if TYPE_CHECKING:
    from model.track.tracker import Tracker


def load_teacher(
    config: TeacherConfig,
    device: torch.device | str = "cpu",
    *,
    student: Tracker | None = None,
) -> Teacher:
    """Build a teacher and fill it with weights.

    Args:
        config: settings.
        device: where its input lies and its features go.
        student: for `self`, the student in training; the teacher starts as a copy of it.

    Raises:
        TeacherError: no such model or weights, they cannot be loaded here, or the teacher teaches
            objects.
    """
    found = _load(config, device, student)
    return found if config.scale == 1 else ScaledTeacher(found, config.scale)


def _load(config: TeacherConfig, device: torch.device | str, student: Tracker | None) -> Teacher:
    model, pretrained = config.model, config.pretrained
    if model == SELF:
        teacher_id(config)
        if student is None:
            raise TeacherError(
                f"teacher.model={SELF} exists during a training only; give its weights file with "
                f"teacher.model={STUDENT} teacher.pretrained=FILE.safetensors"
            )
        return average_teacher(student)
    if model == STUDENT:
        return load_student(pretrained, device)
    if model == YOLOX:
        # Imported here, because its runtime need not be installed.
        from pipeline.teachers.yolox import YoloxTeacher

        return YoloxTeacher(pretrained, device)
    if model == REID:
        raise TeacherError(
            f"teacher.model={REID} teaches labelled people one by one, and there are no labels "
            "here; it is for vsdmot train"
        )
    return load_tower(model, pretrained, device)


def follow_average(teacher: Teacher, weights: Mapping[str, Tensor]) -> None:
    """Make `self` move with the average of the training; see `StudentTeacher.follow`."""
    inner = teacher.teacher if isinstance(teacher, ScaledTeacher) else teacher
    assert isinstance(inner, StudentTeacher)
    inner.follow(weights)


def load_object_teacher(
    config: TeacherConfig, device: torch.device | str = "cpu"
) -> ObjectTeacher | None:
    """Build a teacher of objects; None if the settings name a teacher of frames.

    Args:
        config: settings.
        device: where its input lies and its vectors go.

    Raises:
        TeacherError: no such weights, or they cannot be loaded here.
    """
    if config.model != REID:
        return None
    from pipeline.teachers.reid import ReidTeacher

    return ReidTeacher(config.pretrained, device)


def teacher_id(config: TeacherConfig) -> str:
    """Id of the teacher that the settings name, without loading it.

    Raises:
        TeacherError: no such model or weights.
    """
    return scaled_id(_unscaled_id(config.model, config.pretrained), config.scale)


def _unscaled_id(model: str, pretrained: str) -> str:
    if model == SELF:
        if pretrained not in ("", PACKAGE):
            raise TeacherError(
                f"teacher.model={SELF} has no weights of its own, but teacher.pretrained="
                f"{pretrained} is given; give teacher.model={STUDENT} to learn from that file"
            )
        return SELF
    if model == STUDENT:
        return student_id(pretrained)
    if model in (YOLOX, REID):
        from pipeline.teachers.onnx_files import network_id

        return network_id(model, pretrained)
    return tower_id(model, pretrained)
