"""Distillation person by person: who counts, and that queries learn what the teacher sees."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from model.communicator import Communicator
from model.learn.clip_batch import ClipBatch, frame_labels
from model.learn.object_distillation import ObjectDistiller, mean_vector, shown
from model.teach.config import DistillationConfig
from model.teach.teacher import ObjectTeacherInfo, TeacherError

ALONE = Communicator()


class Colours:
    """The vector of a person is the mean colour of the box."""

    info = ObjectTeacherInfo("colours", 3)

    def __call__(self, images, frames, boxes):
        corners = boxes.round().int().tolist()
        pictures = [
            images[f, :, y1:y2, x1:x2].float().mean((1, 2))
            for f, (x1, y1, x2, y2) in zip(frames.tolist(), corners, strict=True)
        ]
        return torch.stack(pictures) if pictures else torch.zeros(0, 3)


def batch_of(boxes, scale=1, **more):
    """One clip of two frames; the boxes (n, 4) of each frame are filled with one colour each."""
    count = max(map(len, boxes))
    corners, ids = torch.zeros(1, 2, count, 4), torch.full((1, 2, count), -1)
    clean = torch.zeros(1, 2, 3, 96 * scale, 128 * scale, dtype=torch.uint8)
    for t, frame in enumerate(boxes):
        for g, box in enumerate(frame):
            corners[0, t, g], ids[0, t, g] = torch.tensor(box).float(), g
            x1, y1, x2, y2 = (side * scale for side in box)
            colour = torch.tensor([40 + 50 * g, 200 - 60 * g, 90 + 30 * t])
            clean[0, t, :, y1:y2, x1:x2] = colour[:, None, None].to(torch.uint8)
    off = torch.zeros(1, 2, count, dtype=torch.bool)
    values = {
        "images": torch.zeros(1, 2, 3, 96, 128, dtype=torch.uint8),
        "valid": torch.tensor([[[96, 128]] * 2]),
        "patches": torch.zeros(1, 2, 1, 8, 8, dtype=torch.uint8),
        "boxes": corners,
        "ids": ids,
        "labels": torch.zeros_like(ids),
        "ignore": off,
        "extent": off.to(torch.uint8),
        "severity": torch.zeros(1, 2),
        "seeds": torch.zeros(1, dtype=torch.int64),
        "names": ("test",),
        "clean": clean,
    }
    return ClipBatch(**values | more)


APART = [[10, 10, 20, 40], [40, 20, 52, 60]], [[12, 10, 22, 40], [90, 30, 104, 80]]


def encoded(embedding):
    return SimpleNamespace(detections=SimpleNamespace(embedding=embedding))


def test_people_count_who_are_tall_enough_and_not_mixed_with_others():
    boxes = (
        [[10, 10, 20, 40], [11, 12, 15, 38], [60, 10, 70, 33], [80, 10, 90, 34]],
        [[10, 10, 20, 40]],
    )
    # The second lies inside the first, which is not inside the second by that much.
    counted = shown(frame_labels(batch_of(boxes)))
    assert counted[0].tolist() == [True, False, False, True]
    assert counted[1].tolist() == [True, False, False, False]
    ignored = torch.zeros(1, 2, 4, dtype=torch.bool)
    ignored[0, 0, 3] = ignored[0, 0, 0] = True
    # What is ignored is not taught, and hides nobody.
    counted = shown(frame_labels(batch_of(boxes, ignore=ignored)))
    assert counted[0].tolist() == [False, True, False, False]


@pytest.mark.parametrize("scale", [1, 2])
def test_matched_queries_learn_the_vector_of_their_person(scale):
    torch.manual_seed(0)
    batch = batch_of(APART, scale)
    mean = mean_vector(Colours(), [batch])
    distiller = ObjectDistiller(DistillationConfig(), 8, Colours(), mean)
    embedding = torch.randn(2, 3, 8, requires_grad=True)
    matched = torch.tensor([[1, -1, 0], [-1, 1, -1]])
    loss, terms = distiller(batch, encoded(embedding), matched, ALONE)
    colours = torch.tensor([[40.0, 200, 90], [90, 140, 90], [40, 200, 120], [90, 140, 120]])
    torch.testing.assert_close(mean, colours.mean(0))
    pairs = ((0, 0, 1), (0, 2, 0), (1, 1, 3))
    distances = [
        1 - F.cosine_similarity(distiller.project(embedding[n, k]), colours[c] - mean, dim=0)
        for n, k, c in pairs
    ]
    assert terms["identity"].item() == pytest.approx(sum(distances).item() / 3, rel=1e-4)
    (loss + embedding.square().sum()).backward()
    found = distiller.after_backward(lambda x: x)
    assert 0 < float(found["distill_share"]) < 1
    task = 2 * embedding.detach()
    reached = (embedding.grad - task).abs().sum(-1) > 1e-6
    assert reached.tolist() == [[True, False, True], [False, True, False]]


def test_nobody_to_teach_costs_nothing():
    batch = batch_of(([[1, 1, 9, 9]], []))
    distiller = ObjectDistiller(DistillationConfig(), 8, Colours(), torch.zeros(3))
    embedding = torch.randn(2, 3, 8, requires_grad=True)
    loss, _ = distiller(batch, encoded(embedding), torch.zeros(2, 3).long() - 1, ALONE)
    assert loss.item() == 0
    loss.backward()
    with pytest.raises(TeacherError, match="show nobody of 24 pixels"):
        mean_vector(Colours(), [batch])
    with pytest.raises(ValueError, match="clean frames"):
        mean_vector(Colours(), [replace(batch, clean=None)])


def test_the_state_holds_projector_mean_and_weight_but_no_teacher():
    distiller = ObjectDistiller(DistillationConfig(), 8, Colours(), torch.ones(3))
    assert distiller.state_dict().keys() == {
        "project.weight", "project.bias", "mean", "weight", "norms"
    }  # fmt: skip
