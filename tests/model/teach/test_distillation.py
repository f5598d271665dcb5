"""Distillation: each term by hand, and a share of the gradient that is right on any number."""

from types import SimpleNamespace

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn
from torch.nn import functional as F

from model.teach.distillation import (
    DistillationConfig,
    Distiller,
    TeacherTargets,
    distiller_bytes,
    distiller_path,
    load_distiller,
)
from model.teach.distillation_terms import (
    box_weights,
    confident_boxes,
    local_loss,
    pooled_loss,
    relation_loss,
)
from model.teach.teacher import TeacherFeatures, TeacherInfo
from model.teach.teacher_statistics import measure_statistics
from model.track.checkpoint import CheckpointError
from tests.tiny import TINY, tiny_inputs, tiny_tracker

INFO = TeacherInfo("test/none", (5, 3), 7)
CONFIG = DistillationConfig()


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def targets(frames, height, width, seed=0):
    valid = torch.ones(frames, height, width, dtype=torch.bool)
    return TeacherTargets(
        random(frames, 8, height, width, seed=seed), random(frames, 7, seed=seed + 1), valid
    )


def test_local_loss_is_a_weighted_mean_of_each_frame_and_ignores_padding():
    teacher = random(2, 4, 1, 3)
    student = teacher.clone()
    student[0, :, 0, 1] *= -1  # cosine -1, distance 2
    student[:, :, 0, 2] = 100.0  # padding
    valid = torch.tensor([[[True, True, False]]] * 2)
    weight = torch.tensor([[[1.0, 3.0, 9.0]]] * 2)
    # The first frame: (1 * 0 + 3 * 2) / 4; the second is perfect.
    assert local_loss(student, teacher, valid, weight) == pytest.approx(1.5 / 2)
    # A frame whose dense features nobody has kept does not count as a perfect one.
    valid[1] = False
    assert local_loss(student, teacher, valid, weight) == pytest.approx(1.5)
    assert local_loss(student, teacher, valid & False, weight) == 0


def test_pooled_loss_spans_zero_to_two_and_knows_no_length():
    a = random(3, 6)
    assert pooled_loss(a, 5 * a) == pytest.approx(0, abs=1e-6)
    assert pooled_loss(a, -a) == pytest.approx(2)


def test_relation_loss_compares_who_is_like_whom():
    teacher = random(5, 6)
    rotation = torch.linalg.qr(random(6, 6, seed=1)).Q
    # A rotation changes every vector and no similarity.
    assert relation_loss(teacher @ rotation, teacher, 0.1) == pytest.approx(0, abs=1e-5)
    shuffled = teacher[[1, 2, 3, 4, 0]]
    assert relation_loss(shuffled, teacher, 0.1) > 0.1
    assert relation_loss(teacher[:1], teacher[:1], 0.1) == 0
    by_hand = 0.0
    student = random(5, 6, seed=2)
    for i in range(5):
        others = [j for j in range(5) if j != i]
        p, q = (
            torch.stack([F.cosine_similarity(x[i], x[j], dim=0) for j in others]).div(0.1)
            for x in (teacher, student)
        )
        p, q = p.log_softmax(0), q.log_softmax(0)
        by_hand += float((p.exp() * (p - q)).sum()) / 5
    assert relation_loss(student, teacher, 0.1) == pytest.approx(by_hand, rel=1e-4)


def test_positions_that_see_any_of_a_box_weigh_more():
    boxes = [torch.tensor([[17.0, 3.0, 30.0, 17.0]]), torch.zeros(0, 4)]
    weights = box_weights(boxes, 2, 3, 4.0, torch.zeros(()))
    assert weights.tolist() == [[[1, 4, 1], [1, 4, 1]], [[1, 1, 1], [1, 1, 1]]]


def test_statistics_centre_and_bring_levels_to_one_strength():
    dense = torch.cat([40 + 10 * random(4, 5, 3, 6), 0.1 * random(4, 3, 3, 6, seed=1)], 1)
    valid = torch.ones(4, 3, 6, dtype=torch.bool)
    valid[:, :, 4:] = False
    dense[:, :, :, 4:] = 1e6  # padding
    found = measure_statistics(INFO, [TeacherFeatures(dense, 9 + random(4, 7), valid)])
    normal = Distiller(CONFIG, 16, INFO, found).targets(
        TeacherFeatures(dense, 9 + random(4, 7), valid)
    )
    kept = normal.dense.permute(0, 2, 3, 1)[valid]
    torch.testing.assert_close(kept.mean(0), torch.zeros(8), atol=1e-4, rtol=0)
    for level in kept.split(INFO.levels, dim=1):
        assert float(level.square().mean()) == pytest.approx(1, rel=1e-3)
    torch.testing.assert_close(normal.pooled.mean(0), torch.zeros(7), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="no dense features"):
        measure_statistics(INFO, [TeacherFeatures(dense, random(4, 7), valid & False)])


class Toy(nn.Module):
    """A shared layer, a semantic branch and a task: all that the share is about."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.shared, self.branch = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 16, 1)
        self.scene, self.task = nn.Linear(16, 16), nn.Conv2d(6, 1, 1)

    def forward(self, x):
        visual = self.shared(x)
        semantic = self.branch(visual)
        scene = self.scene(semantic.mean((2, 3)))
        student = SimpleNamespace(visual=visual, semantic_map=semantic, scene=scene)
        # The task goes through the branch as well, as the tracker's fusion does.
        task = self.task(visual).square() + semantic.square().mean(1, keepdim=True)
        return student, task.mean((1, 2, 3))


def toy_distiller(share=0.12):
    torch.manual_seed(4)
    return Distiller(DistillationConfig(share=share), 16, INFO)


def steps(frames, count, mean):
    """Shares and weights of some steps on a slice of the same eight frames."""
    toy, distiller, history = Toy(), toy_distiller(), []
    goal = targets(8, 4, 5)
    mine = TeacherTargets(goal.dense[frames], goal.pooled[frames], goal.valid[frames])
    for _ in range(count):
        student, task = toy(random(8, 3, 4, 5, seed=9)[frames])
        loss, terms = distiller(student, mine, None)
        (loss + task.mean()).backward()
        found = distiller.after_backward(mean)
        history.append([float(x) for x in (*found.values(), terms["relation"])])
    return history


def test_the_share_is_what_the_definition_says_and_is_reached():
    toy, distiller = Toy(), toy_distiller()
    goal, picture = targets(8, 4, 5), random(8, 3, 4, 5, seed=9)
    distiller.weight.fill_(30.0)
    student, task = toy(picture)
    loss, _ = distiller(student, goal, None)
    pull = torch.autograd.grad(loss, student.visual, retain_graph=True)[0].norm()
    push = torch.autograd.grad(task.mean(), student.visual, retain_graph=True)[0].norm()
    (loss + task.mean()).backward()
    found = distiller.after_backward(lambda x: x)
    share = float(found["distill_share"])
    assert share == pytest.approx(float(pull / (pull + push)), rel=1e-4)
    assert abs(share - 0.12) > 0.05
    student, task = toy(picture)
    loss, _ = distiller(student, goal, None)
    (loss + task.mean()).backward()
    share = float(distiller.after_backward(lambda x: x)["distill_share"])
    assert share == pytest.approx(0.12, rel=1e-3)


def test_weight_and_share_survive_a_resume():
    one = toy_distiller()
    one.weight.fill_(0.3)
    one.norms.copy_(torch.tensor([2.0, 5.0]))
    other = toy_distiller()
    other.load_state_dict(one.state_dict())
    assert other.weight == pytest.approx(0.3) and other.norms.tolist() == [2, 5]


def two_workers(rank, folder):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )

    def mean(x):
        torch.distributed.all_reduce(x)
        return x / 2

    history = steps(slice(rank * 4, rank * 4 + 4), 3, mean)
    torch.save(history, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_workers_with_half_the_batch_hold_the_share_of_one_with_all(tmp_path):
    mp.start_processes(two_workers, (str(tmp_path),), nprocs=2, start_method="fork")
    whole = steps(slice(0, 8), 3, lambda x: x)
    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for expected, first, second in zip(whole, *halves, strict=True):
        assert first[:2] == second[:2]
        assert first[0] == pytest.approx(expected[0], rel=1e-4)
        assert first[1] == pytest.approx(expected[1], rel=1e-4)
        # What is like what is a question to the whole batch.
        assert first[2] == second[2] == pytest.approx(expected[2], rel=1e-4)


def test_on_a_real_tracker_the_shared_layers_learn_and_track_memory_is_left_alone():
    tracker = tiny_tracker().train()
    student = tracker.encode(*tiny_inputs(3))
    height, width = student.semantic_map.shape[2:]
    distiller = Distiller(CONFIG, TINY.semantic_dim, INFO)
    loss, terms = distiller(student, targets(3, height, width), confident_boxes(student, 0.0))
    loss.backward()
    assert set(terms) == {"local", "pooled", "relation"}
    for part in (tracker.encoder, tracker.semantics, distiller):
        assert sum(float(p.grad.abs().sum()) for p in part.parameters() if p.grad is not None) > 0
    assert all(p.grad is None for p in tracker.memory.parameters())
    # Nothing but distillation pulled.
    share = float(distiller.after_backward(lambda x: x)["distill_share"])
    assert share == pytest.approx(1, abs=1e-3)


def test_confident_boxes_are_those_of_the_picture():
    student = tiny_tracker(lively=True).encode(*tiny_inputs(2))
    every = confident_boxes(student, 0.0)
    assert [len(b) for b in every] == student.dense.valid.sum(1).tolist()
    assert sum(map(len, confident_boxes(student, 0.6))) < sum(map(len, every))


def test_maps_of_another_canvas_are_refused():
    student = tiny_tracker().encode(*tiny_inputs(2))
    with pytest.raises(ValueError, match="test/none gives maps of \\(9, 9\\)"):
        Distiller(CONFIG, TINY.semantic_dim, INFO)(student, targets(2, 9, 9), None)


def test_projectors_lie_beside_the_weights(tmp_path):
    path = distiller_path(tmp_path / "student.safetensors")
    assert path.name == "student.distiller.safetensors"
    distiller = toy_distiller()
    distiller.dense_mean.fill_(3.0)
    path.write_bytes(distiller_bytes(distiller))
    read = load_distiller(path)
    assert (read.teacher, read.config) == (distiller.teacher, distiller.config)
    for name, value in distiller.state_dict().items():
        assert torch.equal(read.state_dict()[name], value)
    with pytest.raises(CheckpointError, match="no such file"):
        load_distiller(tmp_path / "none.safetensors")
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="distil again"):
        load_distiller(path)
