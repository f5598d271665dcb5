"""A student of this project as teacher: fixed weights of a file, or the average of a training.

It sees the clean picture, so its quality is taken as 1. Dense features are its fused maps, the
pooled vector is its scene vector.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from model.net.config import LEAST_SIDE, STRIDES
from model.net.padding import valid_positions
from model.net.quality import STATISTICS
from model.teach.config import SELF, STUDENT
from model.teach.teacher import (
    STRIDE,
    TeacherError,
    TeacherFeatures,
    TeacherInfo,
    check_canvas,
    resized,
)
from model.track.checkpoint import CheckpointError, file_sha256, read_metadata
from model.track.tracker import Tracker


class StudentTeacher(nn.Module):
    """A student in eval mode, without trainable parameters.

    Args:
        tracker: the student; its weights are copied.
        identity: id of the teacher.
        licence: note on the licence of its weights.
    """

    def __init__(self, tracker: Tracker, identity: str, licence: str) -> None:
        super().__init__()
        config = tracker.config
        # With the least canvas as the config's, maps are not padded to a larger one.
        self._tracker = Tracker(config.with_input(LEAST_SIDE, LEAST_SIDE))
        self._tracker.load_state_dict(tracker.state_dict())
        self._freeze()
        levels = (config.dim,) * len(STRIDES)
        self.info = TeacherInfo(identity, levels, config.semantic_dim, licence)

    def train(self, mode: bool = True) -> "StudentTeacher":
        """Keep eval mode, whatever the argument."""
        return super().train(False)

    def follow(self, weights: Mapping[str, Tensor]) -> None:
        """Share memory with these weights from now on, so that changes in place move the teacher.

        Args:
            weights: by the names of the tracker's state dict, on the teacher's device.
        """
        self._tracker.load_state_dict(weights, assign=True)
        self._freeze()

    def _freeze(self) -> None:
        self.requires_grad_(False)
        self.eval()

    @torch.no_grad()
    def forward(self, images: Tensor, valid: Tensor) -> TeacherFeatures:
        """See `Teacher`."""
        check_canvas(images)
        tracker, count = self._tracker, len(images)
        unused = torch.zeros(count, len(STATISTICS), device=images.device)
        percept = tracker.describe(tracker.features(images, valid), unused)
        percept = replace(percept, quality=torch.ones_like(percept.quality))
        fused, _, _ = tracker.fuse(percept)
        grid = (images.shape[2] // STRIDE, images.shape[3] // STRIDE)
        return TeacherFeatures(
            torch.cat([resized(x.float(), grid) for x in fused], dim=1),
            percept.scene.float(),
            valid_positions(valid, grid, STRIDE),
        )


def load_student(path: str, device: torch.device | str = "cpu") -> StudentTeacher:
    """Build the teacher from a weights file of a student, of any size.

    Raises:
        TeacherError: no such file, or it cannot be read.
    """
    identity = student_id(path)
    try:
        tracker, metadata = Tracker.load(path)
    except CheckpointError as error:
        raise TeacherError(f"teacher.model={STUDENT}: {error}") from error
    licence = f"as of {Path(path).name}, a student of this project; its teacher: {metadata.teacher}"
    return StudentTeacher(tracker, identity, licence).to(device)


def student_id(path: str) -> str:
    """Id of the teacher that `load_student` builds, which depends on the content of the file.

    Raises:
        TeacherError: as `load_student`.
    """
    if not Path(path).is_file():
        raise TeacherError(
            f"teacher.model={STUDENT}: {path or 'nothing'} is no weights file; give one with "
            "teacher.pretrained=FILE.safetensors"
        )
    try:
        size = read_metadata(path).model.size
    except CheckpointError as error:
        raise TeacherError(f"teacher.model={STUDENT}: {error}") from error
    return f"{STUDENT}-{size}/{file_sha256(path)[:12]}"


def average_teacher(tracker: Tracker) -> StudentTeacher:
    """The student itself as teacher; `follow` then gives it the average of the training."""
    licence = "its own: the teacher is an average of the student's weights"
    device = next(tracker.parameters()).device
    return StudentTeacher(tracker, SELF, licence).to(device)
