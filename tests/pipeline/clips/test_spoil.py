"""Degradations of training: they resemble the benchmark's, and are consistent over a clip."""

from itertools import pairwise

import cv2
import numpy as np
import pytest

from pipeline.clips.fast_kernels import JPEG, fast_degrade
from pipeline.clips.spoil import spoil
from pipeline.degrade.kinds import PORTABLE_KINDS, character_of, degrade, degrade_frame

KINDS = tuple(kind for kind in PORTABLE_KINDS if kind != "swing")


@pytest.fixture(scope="module")
def frame():
    random = np.random.default_rng(0)
    rough = random.integers(0, 256, (160, 240, 3)).astype(np.uint8)
    return cv2.GaussianBlur(rough, (0, 0), 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [0.5, 2.0, 5.0])
def test_the_fast_kinds_look_like_the_benchmark(frame, kind, level):
    character = character_of(3)
    slow = degrade_frame(frame, kind, level, character, 7).astype(float)
    fast = fast_degrade(frame, kind, level, character, 7).astype(float)
    assert np.abs(fast - slow).mean() < 2.0
    assert np.abs(fast - slow).mean() < 0.75 * np.abs(slow - frame).mean() + 0.5


def test_one_frame_at_a_severity_is_that_of_the_benchmark(frame):
    for kind in PORTABLE_KINDS:
        if kind != "swing":
            expected = degrade(frame[None], kind, 3, seed=11, start=5)[0]
            found = degrade_frame(frame, kind, 3.0, character_of(11), 5)
            np.testing.assert_array_equal(found, expected)


def test_jpeg_grows_worse_with_its_level_and_keeps_colours(frame):
    errors = [
        np.abs(fast_degrade(frame, JPEG, level, character_of(0), 0).astype(int) - frame).mean()
        for level in range(6)
    ]
    assert errors == sorted(errors) and errors[0] < 3 and errors[5] > 2 * errors[0]
    red = np.zeros_like(frame)
    red[..., 0] = 200
    kept = fast_degrade(red, JPEG, 1.0, character_of(0), 0).reshape(-1, 3).mean(0)
    assert kept[0] > 180 and kept[1:].max() < 20


@pytest.mark.parametrize("several", [0.0, 1.0])
def test_a_clip_is_degraded_alike_and_its_frames_stay_as_they_were(frame, several):
    before = frame.copy()
    for seed in range(12):
        clip = [frame] * 4
        one = spoil(clip, PORTABLE_KINDS, several, np.random.default_rng(seed))
        other = spoil(clip, PORTABLE_KINDS, several, np.random.default_rng(seed))
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.shape == frame.shape and a.dtype == np.uint8
        # Apart from noise, which is fresh in every frame, they change slowly.
        smooth = [cv2.blur(spoiled, (9, 9)).astype(float) for spoiled in one]
        assert max(np.abs(a - b).mean() for a, b in pairwise(smooth)) < 25
    np.testing.assert_array_equal(frame, before)


def test_several_at_once_are_worse_than_none_and_swing(frame):
    levels = []
    for seed in range(16):
        clip = spoil([frame[:80, :120]] * 60, ("noise",), 1.0, np.random.default_rng(seed))
        errors = [np.abs(f.astype(int) - frame[:80, :120]).mean() for f in clip[::6]]
        levels.append((min(errors), max(errors)))
    low, high = np.array(levels).T
    assert (high > 3).mean() > 0.9
    assert np.median(high / np.maximum(low, 0.1)) > 1.5
