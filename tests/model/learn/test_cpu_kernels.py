"""Fast convolutions on a CPU compute what PyTorch computes, or say why they cannot."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import Conv2dSame
from torch import nn

from model.communicator import Communicator
from model.learn.batch_statistics import use_batch_statistics
from model.learn.cpu_kernels import compiled as compiling
from model.learn.cpu_kernels import convolutions
from model.learn.cpu_kernels.compiled import KernelError, compiled, kernels
from model.learn.cpu_kernels.convolutions import (
    DepthwiseConvolution,
    PointwiseConvolution,
    use_cpu_kernels,
)
from tests.tiny import tiny_inputs, tiny_tracker

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def pretend(monkeypatch, flags):
    """Let this CPU have flags, and no others."""
    monkeypatch.setattr(convolutions, "cpu_flags", lambda: frozenset(flags))


def outcome(layer, x, direction):
    """What a layer gives, and gradients of its input and weights."""
    x = x.detach().requires_grad_()
    y = layer(x)
    inputs = (x, *layer.parameters())
    return y, *torch.autograd.grad((y * direction).sum(), inputs)


def assert_alike(plain, fast, x, tolerance):
    wanted = plain(x)
    assert fast(x).shape == wanted.shape
    direction = torch.randn_like(wanted)
    for one, two in zip(outcome(plain, x, direction), outcome(fast, x, direction), strict=True):
        assert one.shape == two.shape
        assert (one - two).norm() <= tolerance * one.norm() + 1e-6


@needs_compiler
@settings(max_examples=60)
@given(
    images=st.integers(1, 3),
    channels=st.sampled_from([2, 7, 16, 35, 64]),
    height=st.integers(3, 14),
    width=st.integers(3, 21),
    kernel=st.sampled_from([3, 5]),
    stride=st.sampled_from([1, 2, 3]),
    same=st.booleans(),
    last=st.booleans(),
    threads=st.integers(1, 2),
)
def test_depthwise_is_that_of_pytorch(
    images, channels, height, width, kernel, stride, same, last, threads
):
    torch.manual_seed(height * width)
    layer = Conv2dSame if same else nn.Conv2d
    plain = layer(
        channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False
    ).train()
    x = torch.randn(images, channels, height, width)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    torch.set_num_threads(threads)
    try:
        assert_alike(plain, DepthwiseConvolution(plain), x, 1e-5)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("flags", "tolerance"), [((), 1e-5), (("avx512_bf16",), 1e-2)])
def test_pointwise_is_that_of_pytorch(monkeypatch, flags, tolerance, bias):
    pretend(monkeypatch, flags)
    torch.manual_seed(0)
    x = torch.randn(2, 24, 5, 7)
    plain = nn.Conv2d(24, 40, 1, bias=bias)
    assert_alike(plain, PointwiseConvolution(plain), x, tolerance)
    # Scores and coordinates are not rounded.
    few = nn.Conv2d(24, 4, 1, bias=bias)
    assert_alike(few, PointwiseConvolution(few), x, 1e-5)


def gradients(tracker, images, valid, patches):
    encoded = tracker.encode(images, valid, patches)
    loss = sum(x.square().mean() for x in (*encoded.maps, encoded.dense.logits))
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in tracker.named_parameters() if p.grad is not None}


@needs_compiler
@pytest.mark.parametrize(("flags", "alike"), [((), 0.9999), (("avx512_bf16",), 0.98)])
def test_a_student_learns_the_same(monkeypatch, flags, alike):
    pretend(monkeypatch, flags)
    plain, fast = tiny_tracker(), tiny_tracker()
    for tracker in (plain, fast):
        tracker.backbone.freeze(1)
        use_batch_statistics(tracker, Communicator())
        tracker.train()
    names = list(fast.state_dict())
    use_cpu_kernels(fast)
    fast.train()
    assert list(fast.state_dict()) == names
    assert [n for n, _ in fast.named_parameters()] == [n for n, _ in plain.named_parameters()]
    kinds = {type(m) for m in fast.modules()}
    assert {PointwiseConvolution, DepthwiseConvolution} <= kinds
    inputs = tiny_inputs(4)
    (loss, wanted), (other, given) = gradients(plain, *inputs), gradients(fast, *inputs)
    torch.testing.assert_close(other, loss, rtol=1e-2, atol=0)
    assert given.keys() == wanted.keys()
    one, two = (torch.cat([g.flatten() for g in each.values()]) for each in (wanted, given))
    assert torch.cosine_similarity(one, two, 0) > alike
    # The running statistics of training differ by rounding alone; with equal ones all is equal.
    fast.load_state_dict(plain.state_dict())
    with torch.no_grad():
        one, two = (tracker.eval().encode(*inputs) for tracker in (plain, fast))
    assert torch.equal(one.dense.logits, two.dense.logits)
    assert all(map(torch.equal, one.maps, two.maps))


@needs_compiler
def test_kernels_leave_the_arithmetic_of_the_process_alone():
    kernels.cache_clear()
    kernels()
    smallest = torch.tensor([1e-40])
    assert float(smallest * 0.5) > 0


def test_without_a_compiler_a_message_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    kernels.cache_clear()
    with pytest.raises(KernelError, match="'no-such-compiler'; install g"):
        use_cpu_kernels(tiny_tracker())
    with pytest.raises(KernelError, match="failed"):
        compiled("false", tmp_path)


@needs_compiler
def test_a_compiler_that_fails_leaves_nothing_behind(monkeypatch, tmp_path):
    broken = tmp_path / "broken.cpp"
    broken.write_text("no C++")
    monkeypatch.setattr(compiling, "_SOURCE", broken)
    with pytest.raises(KernelError, match=r"failed: (.|\n)*broken.cpp(.|\n)*CXX"):
        compiled("g++", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


@needs_compiler
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("")
    with pytest.raises(KernelError, match=f"kept in {taken}.*XDG_CACHE_HOME"):
        compiled("g++", taken)


@needs_compiler
def test_several_may_compile_at_once(monkeypatch, tmp_path):
    small = tmp_path / "small.cpp"
    small.write_text('extern "C" int one() { return 1; }')
    monkeypatch.setattr(compiling, "_SOURCE", small)
    cache = tmp_path / "cache"
    with ThreadPoolExecutor(4) as pool:
        made = set(pool.map(lambda _: compiled("g++", cache), range(4)))
    assert list(cache.iterdir()) == list(made)
