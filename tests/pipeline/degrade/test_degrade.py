"""Degradations: reproducible, coherent in time, and worse with each severity."""

import hashlib
import itertools

import numpy as np
import pytest
from PIL import Image

from pipeline.degrade.kinds import (
    KINDS,
    PORTABLE_KINDS,
    SEVERITIES,
    DegradeError,
    degrade,
    frame_severities,
    sequence_seed,
)

# Of `small_clip` at severity 3 and seed 7; a change here changes every published benchmark figure.
GOLDEN = {
    "noise": "66df3717f8b94d61",
    "motion_blur": "0b8bbce84d555f1a",
    "defocus": "4f309f81b565349d",
    "low_light": "3cbdb1cf9ec4e65e",
    "low_resolution": "fd6f973cbc6a306f",
    "haze": "33549e75f5fbeb10",
    "swing": "fe870509656b9528",
}


def small_clip(count: int = 4, height: int = 96, width: int = 160) -> np.ndarray:
    """A block that moves over structure of all sizes, as natural pictures have it."""
    ground = np.zeros((height, width), np.uint16)
    for cell in (3, 6, 12, 24, 48):
        grid = (height // cell + 1, width // cell + 1)
        drawn = np.random.PCG64(cell).random_raw(grid[0] * grid[1]).reshape(grid) >> 56
        layer = Image.fromarray(drawn.astype(np.uint8)).resize((width, height), Image.BILINEAR)
        ground += np.asarray(layer) // 5
    clip = np.repeat(ground.astype(np.uint8)[None, :, :, None], 3, axis=3).repeat(count, axis=0)
    for t in range(count):
        clip[t, 20:70, 30 + 5 * t : 50 + 5 * t] = (210, 40, 60)
    return clip


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(float) - b) ** 2)
    return float(10 * np.log10(255**2 / error))


def test_there_are_the_eight_kinds_of_the_design():
    assert len(KINDS) == 8
    assert set(KINDS) - set(PORTABLE_KINDS) == {"codec"}


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_pixels_and_the_input_is_left_alone(kind):
    clip = small_clip()
    kept = clip.copy()
    first, second = degrade(clip, kind, 3, seed=7), degrade(clip, kind, 3, seed=7)
    assert first.shape == clip.shape
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(clip, kept)


@pytest.mark.parametrize("kind", GOLDEN)
def test_pixels_are_the_same_on_every_machine(kind):
    digest = hashlib.sha256(degrade(small_clip(), kind, 3, seed=7).tobytes()).hexdigest()
    assert digest[:16] == GOLDEN[kind]


@pytest.mark.parametrize("kind", [k for k in PORTABLE_KINDS if k != "low_resolution"])
def test_another_seed_is_another_clip(kind):
    clip = small_clip()
    assert (degrade(clip, kind, 4, seed=1) != degrade(clip, kind, 4, seed=2)).any()


@pytest.mark.parametrize("kind", PORTABLE_KINDS)
def test_windows_of_a_video_are_the_video(kind):
    clip = small_clip(6)
    whole = degrade(clip, kind, 4, seed=11)
    np.testing.assert_array_equal(degrade(clip[:2], kind, 4, seed=11), whole[:2])
    np.testing.assert_array_equal(degrade(clip[2:], kind, 4, seed=11, start=2), whole[2:])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [0, 3])
def test_damage_grows_with_severity(kind, seed):
    clip = small_clip(2, 192, 320)
    # A swing is worst at one moment of its period; the other kinds do not care.
    start = int(frame_severities(kind, 5, seed, 160).argmax())
    quality = [psnr(degrade(clip, kind, severity, seed, start), clip) for severity in SEVERITIES]
    assert all(worse < better for better, worse in itertools.pairwise(quality)), quality


@pytest.mark.parametrize("kind", ["motion_blur", "defocus", "low_light", "low_resolution", "haze"])
def test_a_still_scene_stays_almost_still(kind):
    """What a camera does to a picture drifts; only sensor noise is fresh in each frame."""
    still = np.repeat(small_clip(1), 2, axis=0)
    first, second = degrade(still, kind, 3, seed=5).astype(float)
    assert abs(first.mean() - second.mean()) < 2
    assert np.abs(first - second).mean() < 6


def test_noise_is_fresh_in_each_frame_but_of_one_strength():
    still = np.full((2, 64, 64, 3), 128, np.uint8)
    first, second = degrade(still, "noise", 3, seed=5).astype(float) - 128
    assert abs(first.std() - second.std()) < 2
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1


def test_swing_moves_smoothly_between_clean_and_its_severity():
    levels = frame_severities("swing", 4, seed=2, count=200)
    assert levels.max() == pytest.approx(4, abs=0.05)
    assert levels.min() == pytest.approx(0, abs=0.05)
    assert np.abs(np.diff(levels)).max() < 0.25
    assert (frame_severities("haze", 4, seed=2, count=3) == 4).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (34, 51)])
def test_odd_and_tiny_frames(kind, size):
    clip = np.full((2, *size, 3), 90, np.uint8)
    assert degrade(clip, kind, 5, seed=1).shape == clip.shape


def test_what_cannot_be_degraded_is_named():
    clip = small_clip(1)
    with pytest.raises(DegradeError, match="unknown kind 'fog'; known: noise, motion_blur"):
        degrade(clip, "fog", 1, 0)
    with pytest.raises(DegradeError, match="severity is 6; expected 1, 2, 3, 4 or 5"):
        degrade(clip, "haze", 6, 0)
    with pytest.raises(DegradeError, match=r"float64 .* expected uint8 \(T, H, W, 3\)"):
        degrade(clip / 255.0, "haze", 1, 0)


def test_codec_without_pyav_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(DegradeError, match="needs PyAV; pip install av"):
        degrade(small_clip(1), "codec", 3, 0)


def test_sequence_seed_is_stable_and_of_each_cell_its_own():
    assert sequence_seed("KITTI-17", "noise", 3) == sequence_seed("KITTI-17", "noise", 3)
    cells = {sequence_seed(s, k, v) for s in ("a", "b") for k in KINDS for v in SEVERITIES}
    assert len(cells) == 80
    assert min(cells) >= 0
    assert max(cells) < 2**63
