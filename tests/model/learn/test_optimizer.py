"""The optimizer against PyTorch's own Muon and AdamW, and what it promises beside."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from model.learn.optimizer import MuonAdamW, orthogonal, suits_muon


def muon(*parameters, **settings):
    return MuonAdamW([{"params": parameters, "muon": True, **settings}], lr=0.01)


def test_steps_are_those_of_pytorch_up_to_its_rounding():
    torch.manual_seed(0)
    ours = nn.Parameter(torch.randn(64, 96))
    theirs = nn.Parameter(ours.detach().clone())
    optimizer = muon(ours, weight_decay=0.1)
    reference = torch.optim.Muon(
        [theirs], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(4):
        ours.grad = torch.randn(64, 96)
        theirs.grad = ours.grad.clone()
        before = theirs.detach().clone()
        optimizer.step()
        reference.step()
        # PyTorch iterates in bfloat16.
        assert (ours - theirs).abs().max() < 0.02 * (theirs - before).abs().max() + 3e-4


@settings(max_examples=20)
@given(st.integers(32, 80), st.integers(32, 80), st.integers(0, 2**31))
def test_singular_values_come_close_to_one(rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    found = orthogonal(torch.randn(3, rows, columns, generator=generator))
    values = torch.linalg.svdvals(found)
    # The smallest singular value of a square random matrix may be too small to be pulled up.
    assert values.max() < 1.25
    assert values.median() > 0.6


def test_matrices_of_one_shape_step_as_if_each_were_alone():
    torch.manual_seed(1)
    together = [nn.Parameter(torch.randn(32, 40, 1, 1)) for _ in range(3)]
    alone = [nn.Parameter(p.detach().clone()) for p in together]
    gradients = [torch.randn_like(p) for p in together]
    for parameters in (together, *([p] for p in alone)):
        for parameter in parameters:
            place = next(i for i, p in enumerate([*together, *alone]) if p is parameter)
            parameter.grad = gradients[place % 3]
        muon(*parameters).step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other)


def test_a_spoilt_gradient_changes_nothing():
    weight = nn.Parameter(torch.randn(32, 32))
    before = weight.detach().clone()
    weight.grad = torch.full_like(weight, torch.nan)
    optimizer = muon(weight, weight_decay=0.1)
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    assert torch.equal(weight, before)
    assert torch.isfinite(optimizer.state[weight]["exp_avg"]).all()


def test_other_groups_are_adamws_before_and_after_a_state_is_loaded():
    torch.manual_seed(2)
    ours = nn.Parameter(torch.randn(5))
    matrix = nn.Parameter(torch.randn(32, 32))
    theirs = nn.Parameter(ours.detach().clone())
    groups = [{"params": [ours], "weight_decay": 0.1}, {"params": [matrix], "muon": True}]
    optimizer = MuonAdamW(groups, lr=0.01)
    reference = torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1, fused=True)
    for _ in range(2):
        for _ in range(2):
            ours.grad, matrix.grad = torch.randn(5), torch.randn(32, 32)
            theirs.grad = ours.grad.clone()
            optimizer.step()
            reference.step()
        assert torch.equal(ours, theirs)
        optimizer.load_state_dict(optimizer.state_dict())
    assert "exp_avg_sq" not in optimizer.state[matrix]


@pytest.mark.parametrize(
    ("name", "shape", "suits"),
    [
        ("encoder.layers.0.v.weight", (128, 128), True),
        ("encoder.up.0.point.weight", (128, 96, 1, 1), True),
        ("encoder.up.0.depth.weight", (128, 1, 5, 5), False),
        ("head.regress.weight", (4, 128, 1, 1), False),
        ("detection_decoder.classify.0.weight", (80, 128), False),
        ("encoder.layers.0.v.bias", (128,), False),
    ],
)
def test_hidden_matrices_suit_and_nothing_else(name, shape, suits):
    assert suits_muon(name, nn.Parameter(torch.zeros(shape))) is suits
