"""Several videos through one model: joined into batches, or one after the other."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.net.quality import frame_statistics
from model.track.rules import TrackRules
from model.track.slots import with_slots
from pipeline.inference import stream_batcher
from pipeline.inference.batched_model import BatchedModel, WindowAndState, cut
from pipeline.inference.stream_batcher import DeviceLost, OneAtATime, StreamBatcher
from tests.tiny import TINY, tiny_inputs, tiny_tracker

WINDOW = 4
LENGTHS = (14, 9, 4, 17, 1)
"""Frames of the videos; no two end together, and most end within a window."""


def windows(video):
    images, valid, patches = tiny_inputs(LENGTHS[video], seed=video)
    for start in range(0, LENGTHS[video], WINDOW):
        part = slice(start, start + WINDOW)
        yield images[part], valid[part], patches[part]


def tracked(runtime, video, rules=None):
    """Ids, boxes and scores of each frame of a video, and the quality of its frames."""
    state, frames, quality = runtime.initial_state(1), [], []
    with torch.inference_mode():
        for window in windows(video):
            encoded = runtime.encode(*window)
            results, state = runtime.track(encoded, state, rules)
            quality += encoded.quality.tolist()
            for r in results:
                seen = r.track_id[0] >= 0
                order = r.track_id[0][seen].argsort()
                frames.append([x[0][seen][order].numpy() for x in (r.track_id, r.boxes, r.scores)])
    return frames, quality


def all_at_once(runtime):
    """Each video in a thread of its own."""

    together = threading.Barrier(len(LENGTHS), timeout=60)

    def one(video):
        with runtime.stream():
            together.wait()
            return tracked(runtime, video)

    with ThreadPoolExecutor(len(LENGTHS)) as pool:
        return list(pool.map(one, range(len(LENGTHS))))


@pytest.fixture(scope="module")
def alone():
    tracker = tiny_tracker(lively=True)
    return [tracked(tracker, video) for video in range(len(LENGTHS))]


def assert_alike(found, wanted, pixels, scores):
    for (frames, quality), (own, own_quality) in zip(found, wanted, strict=True):
        assert len(frames) == len(own) and sum(len(ids) for ids, _, _ in own) > 0
        for (ids, boxes, score), (own_ids, own_boxes, own_score) in zip(frames, own, strict=True):
            assert ids.tolist() == own_ids.tolist()
            np.testing.assert_allclose(boxes, own_boxes, rtol=0, atol=pixels)
            np.testing.assert_allclose(score, own_score, rtol=0, atol=scores)
        np.testing.assert_allclose(quality, own_quality, rtol=0, atol=scores)


@pytest.mark.parametrize(("rows", "frames"), [(3, 12), (2, 5), (8, 64)])
def test_videos_in_one_batch_are_tracked_as_alone(alone, monkeypatch, rows, frames):
    monkeypatch.setattr(stream_batcher, "_LINGER_S", 0.5)  # so that windows are sure to be joined
    model, sizes = BatchedModel(tiny_tracker(lively=True), rows, frames, "fp32"), []
    for name in ("encode", "track"):
        real = getattr(model, name)
        monkeypatch.setattr(
            model, name, lambda given, real=real: sizes.append(len(given)) or real(given)
        )
    batcher = StreamBatcher(model)
    assert_alike(all_at_once(batcher), alone, pixels=2e-2, scores=1e-4)
    batcher.close()
    assert 2 <= max(sizes) <= rows, "windows were joined, and never too many"


def test_threads_that_take_turns_get_exactly_the_rows_of_one(alone):
    runtime = OneAtATime(tiny_tracker(lively=True))
    assert_alike(all_at_once(runtime), alone, pixels=0, scores=0)


def test_each_video_has_rules_of_its_own():
    tracker = tiny_tracker(lively=True)
    strict = TrackRules(0.99, 0.99, 0.7, 0)
    model = BatchedModel(tiny_tracker(lively=True), 2, 2 * WINDOW, "fp32")
    given = [next(windows(3)), next(windows(3))]
    encoded, wait = model.encode([model.stage(*window) for window in given])
    wait()
    own = TrackRules.of(TINY)
    pairs = [(encoded[0], strict), (encoded[1], own)]
    found, wait = model.track(
        [WindowAndState(e, model.initial_state(1), rules) for e, rules in pairs]
    )
    wait()
    born = [int((results[-1].track_id >= 0).sum()) for results, _ in found]
    assert born[0] < born[1]
    with torch.inference_mode():
        alone, _ = tracker.track(tracker.encode(*given[1]), tracker.initial_state(1), own)
    assert born[1] == int((alone[-1].track_id >= 0).sum())


def test_tracks_age_over_the_frames_that_their_own_video_carries():
    """In rows of several lengths, with a video that carries nothing beside it."""
    own = replace(TrackRules.of(TINY), miss_tolerance=3)
    tracker = tiny_tracker(lively=True)
    model = BatchedModel(tiny_tracker(lively=True), 3, 3 * WINDOW, "fp32")
    whole_windows = [next(windows(video)) for video in range(3)]
    given = [[x[:n] for x in w] for w, n in zip(whole_windows, (4, 2, 3), strict=True)]
    carried = [None, [0, 2], [9, 0, 1]]
    encoded, wait = model.encode([model.stage(*window) for window in given])
    wait()
    aged, whole = [], []
    with torch.inference_mode():
        for window, counts in zip(given, carried, strict=True):
            # Half of all tracks are unseen before the window.
            _, state = tracker.track(tracker.encode(*window), tracker.initial_state(1), own)
            state = with_slots(state, TINY.slots)
            misses = state.active.long() * torch.arange(TINY.slots).remainder(2)
            aged.append(replace(state, misses=misses))
            whole.append(tracker.track(tracker.encode(*window), aged[-1], own, counts))
    found, wait = model.track(
        [WindowAndState(*row) for row in zip(encoded, aged, [own] * 3, carried, strict=True)]
    )
    wait()
    for (results, after), (wanted, state) in zip(found, whole, strict=True):
        assert [r.track_id[r.track_id >= 0].tolist() for r in results] == [
            r.track_id[r.track_id >= 0].tolist() for r in wanted
        ]
        state = with_slots(state, TINY.slots)
        for name in ("track_id", "active", "misses", "next_id"):
            assert torch.equal(getattr(after, name), getattr(state, name))
    before, after = aged[2].track_id, set(found[2][1].track_id.flatten().tolist())
    assert set(before[aged[2].misses > 0].tolist()).isdisjoint(after)
    assert set(before[aged[2].active & (aged[2].misses == 0)].tolist()) & after


def test_dense_part_in_bf16_keeps_boxes_and_maps_in_float32():
    model = BatchedModel(tiny_tracker(lively=True), 1, WINDOW, "bf16")
    exact = BatchedModel(tiny_tracker(lively=True), 1, WINDOW, "fp32")
    (rough,), _ = model.encode([model.stage(*next(windows(0)))])
    (fine,), _ = exact.encode([exact.stage(*next(windows(0)))])
    for tensor in (*rough.maps, rough.semantic, rough.people.boxes, rough.quality):
        assert tensor.dtype == torch.float32
    assert not torch.equal(rough.maps[0], fine.maps[0])
    assert torch.allclose(rough.maps[0], fine.maps[0], atol=0.1, rtol=0.05)
    assert torch.equal(rough.statistics, frame_statistics(next(windows(0))[2]))


def test_videos_of_several_canvases_are_tracked_together():
    """A narrow video, whose maps are padded, and a wide one: each as alone."""
    tracker, model = (
        tiny_tracker(lively=True),
        BatchedModel(tiny_tracker(lively=True), 2, 8, "fp32"),
    )
    wide = next(windows(3))
    narrow = wide[0][:, :, :, :64], torch.tensor([[64, 64]] * WINDOW), wide[2]
    encoded = [model.encode([model.stage(*given)])[0][0] for given in (narrow, wide)]
    own = TrackRules.of(TINY)
    found, _ = model.track(
        [WindowAndState(frames, model.initial_state(1), own) for frames in encoded]
    )
    for given_frames, (results, _) in zip((narrow, wide), found, strict=True):
        with torch.inference_mode():
            alone, _ = tracker.track(tracker.encode(*given_frames), tracker.initial_state(1))
        for one, other in zip(results, alone, strict=True):
            ids, others = (r.track_id[0][r.track_id[0] >= 0] for r in (one, other))
            assert len(ids) and ids.tolist() == others.tolist()
            boxes, wanted = (r.boxes[0][r.track_id[0] >= 0] for r in (one, other))
            assert torch.allclose(boxes, wanted, atol=2e-2)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 7))
def test_batches_hold_every_frame_once_and_in_order(lengths, most):
    batches = cut(lengths, most)
    taken = [(number, i) for batch in batches for number, part in batch for i in range(9)[part]]
    assert taken == [(number, i) for number, length in enumerate(lengths) for i in range(length)]
    sizes = [sum(part.stop - part.start for _, part in batch) for batch in batches]
    assert all(size == most for size in sizes[:-1]) and sizes[-1] <= most


class Model:
    """Stands in for `BatchedModel`: answers at once, fails on what it is told to."""

    config, rows = TINY, 4

    def __init__(self, bad=(), error=ValueError):
        self.bad, self.error, self.batches = bad, error, []

    def stage(self, images, valid, patches):
        return type("Staged", (), {"canvas": (64, 96), "number": images})()

    def encode(self, windows):
        self.batches.append([w.number for w in windows])
        for window in windows:
            if window.number in self.bad:
                raise self.error(f"window {window.number}")
        return [w.number for w in windows], lambda: None


def asked(batcher, numbers):
    """What each thread got: its number, or the error."""

    together = threading.Barrier(len(numbers), timeout=60)

    def one(number):
        with batcher.stream():
            together.wait()
            try:
                return batcher.encode(number, None, None)
            except (ValueError, DeviceLost) as error:
                return error

    with ThreadPoolExecutor(len(numbers)) as pool:
        return list(pool.map(one, numbers))


def test_a_window_that_fails_costs_the_others_nothing(monkeypatch):
    monkeypatch.setattr(stream_batcher, "_LINGER_S", 2.0)
    model = Model(bad={2})
    batcher = StreamBatcher(model)
    found = asked(batcher, range(4))
    assert [found[i] for i in (0, 1, 3)] == [0, 1, 3]
    assert isinstance(found[2], ValueError) and str(found[2]) == "window 2"
    assert [2] in model.batches and max(map(len, model.batches)) > 1
    assert asked(batcher, [5]) == [5], "the model goes on"
    batcher.close()


def test_a_lost_gpu_blames_no_video():
    batcher = StreamBatcher(Model(bad={1}, error=torch.AcceleratorError))
    found = asked(batcher, [1])
    assert isinstance(found[0], DeviceLost) and "the GPU failed" in str(found[0])
    batcher.close()


def test_a_slow_video_holds_up_nobody():
    model = Model()
    batcher = StreamBatcher(model)
    with batcher.stream(), batcher.stream(), batcher.stream():  # two wait for their decoders
        assert [batcher.encode(number, None, None) for number in range(5)] == list(range(5))
    batcher.close()
    assert model.batches == [[number] for number in range(5)]
