import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from model.net.fusion import SemanticGate
from model.net.quality import PATCH, PATCHES, STATISTICS, _median, frame_statistics, sample_patches


def picture(height=480, width=640):
    """A structured grey picture: edges at many scales, no noise."""
    y, x = np.mgrid[:height, :width]
    waves = np.sin(x / 9) + np.sin(y / 14) + np.sign(np.sin((x + 2 * y) / 40))
    return np.clip(128 + 35 * waves, 0, 255).astype(np.uint8)


def measure(luma):
    values = frame_statistics(torch.from_numpy(sample_patches(luma))[None])[0].tolist()
    return dict(zip(STATISTICS, values, strict=True))


@given(st.integers(1, 700), st.integers(1, 700))
def test_patches_have_one_shape_for_any_picture(height, width):
    patches = sample_patches(np.zeros((height, width), np.uint8))
    assert patches.shape == (PATCHES, PATCH, PATCH)


@pytest.mark.parametrize("sigma", [5, 15, 30])
def test_noise_is_measured_in_shares_of_full_scale(sigma):
    random = np.random.default_rng(0)
    noisy = np.clip(128 + random.normal(0, sigma, (480, 640)), 0, 255).round().astype(np.uint8)
    assert measure(noisy)["noise"] == pytest.approx(sigma / 255, rel=0.1)


def test_blur_lowers_sharpness_and_noise_does_not_raise_it():
    clean = picture()
    blurred = np.asarray(Image.fromarray(clean).filter(ImageFilter.GaussianBlur(4)))
    random = np.random.default_rng(1)
    noisy = np.clip(clean + random.normal(0, 20, clean.shape), 0, 255).astype(np.uint8)
    assert measure(blurred)["sharpness"] < 0.7 * measure(clean)["sharpness"]
    assert measure(noisy)["sharpness"] < 1.1 * measure(clean)["sharpness"]


def test_blocks_are_seen_at_their_grid_only():
    random = np.random.default_rng(2)
    blocks = random.integers(60, 200, (60, 80)).repeat(8, 0).repeat(8, 1)
    blocks = (blocks + random.integers(-2, 3, blocks.shape)).astype(np.uint8)
    assert measure(blocks)["blockiness"] > 2
    assert abs(measure(picture())["blockiness"]) < 0.3


def test_luma_and_contrast():
    flat = np.full((100, 100), 51, np.uint8)
    assert measure(flat)["luma"] == pytest.approx(0.2)
    assert measure(flat)["contrast"] == pytest.approx(0, abs=1e-5)


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=8),
    st.floats(-5, 5),
    st.floats(-5, 5),
    st.integers(0, 1000),
)
def test_a_worse_picture_never_gets_a_smaller_semantic_weight(qualities, bias, slope, seed):
    torch.manual_seed(seed)
    gate = SemanticGate(4)
    gate.bias.data.fill_(bias)
    gate.slope.data.fill_(slope)
    torch.nn.init.normal_(gate.residual.weight, std=3)
    quality = torch.tensor(sorted(qualities))
    query = torch.randn(1, 3, 4).expand(len(qualities), 3, 4)
    frame, queries = gate(quality), gate(quality, query)
    assert (frame.diff() <= 1e-7).all() and (queries.diff(dim=0) <= 1e-7).all()


@given(st.integers(0, 2**31), st.integers(1, 40))
def test_the_median_is_torchs(seed, count):
    values = torch.rand(2, 3, count, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(_median(values), values.median(dim=-1).values)
