"""What stands before the scene hides whom it covers, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clips import Clips
from pipeline.occluders import draw_occluder, hidden, paint
from pipeline.shards import Shards
from tests.training_parts import CLIPS, write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return Shards(write_shards(tmp_path_factory.mktemp("shards")))


@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_pixels_change_only_where_it_is(seed, length):
    random = np.random.default_rng(seed)
    clip = random.integers(0, 256, (length, 30, 50, 3)).astype(np.uint8)
    before = clip.copy()
    places = draw_occluder(length, random)
    painted = paint(clip, places, random)
    assert np.array_equal(clip, before) and painted.shape == clip.shape
    for frame, new, place in zip(clip, painted, places, strict=True):
        x1, y1, x2, y2 = (place * [50, 30, 50, 30]).round().astype(int)
        outside = np.ones(frame.shape[:2], bool)
        outside[y1:y2, x1:x2] = False
        assert np.array_equal(frame[outside], new[outside])


def test_whom_it_mostly_covers_is_hidden():
    boxes = np.array([[0.1, 0.1, 0.2, 0.5], [0.15, 0.1, 0.25, 0.5], [0.6, 0.1, 0.7, 0.5]])
    assert hidden(boxes, [0.0, 0.0, 0.2, 1.0]).tolist() == [True, False, False]
    assert hidden(boxes[:0], [0.0, 0.0, 0.2, 1.0]).tolist() == []


def test_who_is_hidden_is_ignored_and_comes_back_as_himself(shards):
    whole = Clips(shards, replace(CLIPS, length=6, stills=0.0, occluded=0.0), seed=1)
    behind = Clips(shards, replace(CLIPS, length=6, stills=0.0, occluded=1.0), seed=1)
    returned = False
    for index in range(40):
        free, clip = whole[index], behind[index]
        assert torch.equal(free["ids"].amax(1), clip["ids"].amax(1)), "nobody is lost"
        seen = ((clip["ids"] == 7) & ~clip["ignore"]).any(1).tolist()
        first, last = (seen.index(True), 6 - seen[::-1].index(True)) if any(seen) else (0, 0)
        returned |= not all(seen[first:last])
    assert returned, "of 40 clips at least one in which the person goes and comes back"
