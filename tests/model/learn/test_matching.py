import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from model.learn import matching
from model.learn.matching import assign_dense, assign_one_to_one, match


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 10_000), st.booleans())
@settings(max_examples=200, deadline=None)
def test_assignment_costs_what_scipys_does(queries, objects, seed, ties):
    random = np.random.default_rng(seed)
    cost = random.normal(size=(queries, objects))
    if ties:
        cost = np.round(cost)
    rows, columns = assign_one_to_one(cost)
    assert len(rows) == min(queries, objects)
    assert len(set(rows.tolist())) == len(rows) and len(set(columns.tolist())) == len(columns)
    reference = linear_sum_assignment(cost)
    np.testing.assert_allclose(cost[rows, columns].sum(), cost[reference].sum())


def test_match_gives_each_object_the_query_on_it(monkeypatch):
    boxes = torch.tensor([[0.2, 0.2, 0.1, 0.2], [0.7, 0.5, 0.1, 0.2], [0.5, 0.5, 0.9, 0.9]])
    logits = torch.tensor([[2.0], [2.0], [2.0]])
    gt = torch.tensor([[0.7, 0.5, 0.1, 0.2], [0.2, 0.2, 0.1, 0.2]])
    person, real = torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2, dtype=torch.bool)
    for solver in (linear_sum_assignment, None):
        monkeypatch.setattr(matching, "linear_sum_assignment", solver)
        found = match(logits[None, None], boxes[None, None], gt[None], person, real)
        assert found.tolist() == [[[1, 0, -1]]]


def test_no_objects_match_nothing():
    padding = torch.zeros(1, 2, dtype=torch.bool)
    logits, boxes = torch.zeros(1, 1, 3, 1), torch.rand(1, 1, 3, 4)
    found = match(logits, boxes, torch.zeros(1, 2, 4), torch.zeros(1, 2).long(), padding)
    assert found.tolist() == [[[-1, -1, -1]]]


def dense_grid():
    y, x = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    centres = (torch.stack([x, y], -1).view(-1, 2) + 0.5) * 8
    boxes = torch.cat([centres - 10, centres + 10], -1)
    return torch.full((1, 64, 1), 0.5), boxes[None], centres, torch.full((64,), 8)


def assigned(gt, real=True, top=10):
    """Object and quality of each position of the grid for objects (G, 4)."""
    label, found = torch.zeros(1, len(gt), dtype=torch.long), torch.full((1, len(gt)), real)
    index, quality = assign_dense(*dense_grid(), gt[None], label, found, top=top)
    return index[0], quality[0]


def test_dense_assignment_stays_inside_objects_and_ranks_by_overlap():
    gt = torch.tensor([[10.0, 10, 30, 30], [40.0, 36, 60, 60]])
    centres = dense_grid()[2]
    index, quality = assigned(gt, top=4)
    for g in range(2):
        mine = index == g
        assert 1 <= int(mine.sum()) <= 4
        inside = (centres[mine] > gt[g, :2] - 8).all() and (centres[mine] < gt[g, 2:] + 8).all()
        assert bool(inside) and float(quality[mine].max()) > 0.5
    assert float(quality[index < 0].abs().max()) == 0


def test_only_positions_near_the_middle_answer_for_a_large_object():
    gt = torch.tensor([[0.0, 0, 64, 64]])
    index, _ = assigned(gt, top=64)
    away = (dense_grid()[2] - 32).abs().amax(-1)
    assert torch.equal(index == 0, away < 2.5 * 8)


def test_an_object_smaller_than_a_cell_still_has_an_answer():
    gt = torch.tensor([[17.0, 17, 19, 19]])
    index, _ = assigned(gt)
    assert int((index == 0).sum()) >= 1


def test_dense_assignment_without_objects_is_background():
    index, quality = assigned(torch.tensor([[10.0, 10, 30, 30]]), real=False)
    assert (index == -1).all() and float(quality.sum()) == 0
