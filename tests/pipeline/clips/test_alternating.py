"""Steps on single frames and on clips in turn: what each step shows, and what is refused."""

from dataclasses import replace

import pytest
import torch

from pipeline.clips.alternating import Alternating
from pipeline.clips.clips import ClipConfig, Clips, collate_clips
from pipeline.clips.config import SinglesConfig
from pipeline.datasets.shards import Shards
from pipeline.training.batches import Stream, batches
from pipeline.training.train_job import TrainJob
from tests.training_parts import CLIPS

SINGLES = replace(CLIPS, length=1, heights=(64, 96))


@pytest.fixture
def both(shards):
    clips = Clips(Shards(shards), replace(CLIPS, length=3), seed=3, batch=4)
    singles = Clips(clips.shards, SINGLES, seed=3, batch=4, store=clips.store)
    return Alternating(singles, clips, steps=2)


def test_each_third_step_is_of_clips_and_all_items_of_a_step_have_one_canvas(both):
    made = list(batches(Stream(both, collate_clips), (4, 4, 2), 0, 6, 0))
    assert [tuple(b.valid.shape[:2]) for b in made] == [(4, 1), (4, 1), (2, 3)] * 2
    assert [b.single for b in made] == [True, True, False] * 2
    assert {b.images.shape[-2] for b in made if not b.single} == {64}
    assert len(both.clips.store._kept) and both.singles.store is both.clips.store


def test_a_step_is_the_same_later_and_from_a_loader(both):
    stream = Stream(both, collate_clips)
    first = list(batches(stream, (4, 4, 2), 0, 4, 0))
    later = list(batches(stream, (4, 4, 2), 2, 4, 1))
    for a, b in zip(first[2:], later, strict=True):
        assert a.names == b.names and torch.equal(a.images, b.images)
        assert torch.equal(a.boxes, b.boxes) and torch.equal(a.seeds, b.seeds)


def test_both_have_to_count_steps_alike(shards):
    clips = Clips(Shards(shards), CLIPS, seed=0, batch=2)
    with pytest.raises(ValueError, match="counted by 4 a step and clips by 2"):
        Alternating(Clips(clips.shards, SINGLES, seed=0, batch=4), clips, steps=1)


def test_single_frames_between_single_frames_or_for_parts_are_refused():
    some = SinglesConfig(steps=2)
    with pytest.raises(ValueError, match=r"clips\.length=1 makes all steps such steps"):
        TrainJob(clips=ClipConfig(length=1), singles=some)
    with pytest.raises(ValueError, match=r"learn=\[tracks\] is given; leave one of them out"):
        TrainJob(start="a.safetensors", learn=("tracks",), singles=some)
    with pytest.raises(ValueError, match=r"singles\.clips\.length: 3 was given, 1 is allowed"):
        SinglesConfig(clips=ClipConfig(length=3))
