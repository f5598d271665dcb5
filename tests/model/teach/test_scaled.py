"""A teacher that sees more pixels: its features lie where the student's positions are."""

import pytest
import torch
from torch.nn import functional as F

from model.net.padding import valid_positions
from model.teach.scaled import ScaledTeacher, scaled_id
from model.teach.teacher import TeacherFeatures, TeacherInfo


class Pooling:
    """Dense features are the means of the picture over positions."""

    info = TeacherInfo("pooling", (3,), 3)

    def __call__(self, images, valid):
        height, width = images.shape[2:]
        assert height % 32 == width % 32 == 0
        self.seen = valid
        dense = F.avg_pool2d(images.float(), 16)
        mask = valid_positions(valid, dense.shape[2:], 16)
        return TeacherFeatures(dense, dense.mean((2, 3)), mask)


def ramp(height, width, scale):
    """Brightness rises by one a pixel of the student's canvas, downwards and to the right."""
    y = (torch.arange(round(height * scale)) + 0.5) / scale
    x = (torch.arange(round(width * scale)) + 0.5) / scale
    grid = y[:, None] + x[None]
    return grid.expand(1, 3, -1, -1)


@pytest.mark.parametrize("scale", [1.25, 1.5, 2.0])
@pytest.mark.parametrize("size", [(64, 96), (96, 160), (64, 416)])
def test_positions_show_the_same_place_at_every_scale(scale, size):
    height, width = size
    inner = Pooling()
    teacher = ScaledTeacher(inner, scale)
    found = teacher(ramp(height, width, scale), torch.tensor([[height, width - 20]]))
    plain = F.avg_pool2d(ramp(height, width, 1.0), 16)
    assert found.dense.shape == plain.shape
    # A position at the border has a neighbour on one side alone.
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(found.dense[inside], plain[inside], atol=1e-3, rtol=0)
    mask = valid_positions(torch.tensor([[height, width - 20]]), plain.shape[2:], 16)
    assert torch.equal(found.valid, mask)
    assert inner.seen.tolist() == [[round(height * scale), round((width - 20) * scale)]]


def test_a_scale_is_part_of_the_id():
    assert ScaledTeacher(Pooling(), 1.5).info.id == "pooling@1.5" == scaled_id("pooling", 1.5)
    assert scaled_id("pooling", 1) == "pooling"
