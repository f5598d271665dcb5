"""The composition: encoding has no state, and neither batches nor windows change a result."""

from dataclasses import fields, replace

import pytest
import torch

from model.net.config import SIZES, ModelConfig
from model.net.quality import frame_statistics
from model.track.tracker import Tracker
from model.track.tracks import TrackState
from tests.tiny import tiny_inputs, tiny_tracker

FRAMES = 6


def check_same(a, b):
    for field in fields(a):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if left.dtype.is_floating_point:
            torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)
        else:
            assert torch.equal(left, right), field.name


@torch.inference_mode()
def run_singly(tracker, images, valid, patches):
    state, results = tracker.initial_state(1), []
    for i in range(len(images)):
        one = slice(i, i + 1)
        encoded = tracker.encode(images[one], valid[one], patches[one])
        result, state = tracker.step(encoded, state)
        results.append(result)
    return results, state


@torch.inference_mode()
def test_windowed_equals_frame_by_frame():
    tracker = tiny_tracker(lively=True)
    inputs = tiny_inputs(FRAMES)
    single, single_state = run_singly(tracker, *inputs)
    assert sum(int((r.track_id >= 0).sum()) for r in single) > FRAMES, "the test tracks nothing"
    encoded = tracker.encode(*inputs)
    first, state = tracker.track(encoded[:4], tracker.initial_state(1))
    second, state = tracker.track(encoded[4:], state)
    for a, b in zip(single, first + second, strict=True):
        check_same(a, b)
    check_same(single_state, state)


@torch.inference_mode()
def test_batched_equals_single():
    tracker = tiny_tracker(lively=True)
    streams = [tiny_inputs(FRAMES, seed) for seed in range(3)]
    alone = [run_singly(tracker, *stream) for stream in streams]
    state = tracker.initial_state(3)
    for t in range(FRAMES):
        encoded = tracker.encode(*(torch.stack([s[k][t] for s in streams]) for k in range(3)))
        result, state = tracker.step(encoded, state)
        for b, (singles, _) in enumerate(alone):
            check_same(slice_of(result, b), singles[t])
    for b, (_, last) in enumerate(alone):
        check_same(slice_of(state, b), last)


def slice_of(value, b):
    return type(value)(**{f.name: getattr(value, f.name)[b : b + 1] for f in fields(value)})


@torch.inference_mode()
def test_a_state_saved_between_segments_goes_on_unchanged():
    tracker = tiny_tracker(lively=True)
    encoded = tracker.encode(*tiny_inputs(FRAMES))
    whole, _ = tracker.track(encoded, tracker.initial_state(1))
    _, state = tracker.track(encoded[:3], tracker.initial_state(1))
    restored = TrackState(**{k: v.clone() for k, v in state.tensors().items()})
    rest, _ = tracker.track(encoded[3:], restored)
    for a, b in zip(whole[3:], rest, strict=True):
        check_same(a, b)


@torch.inference_mode()
def test_the_gate_alone_sees_a_percept_of_another_quality():
    tracker = tiny_tracker(lively=True)
    percept = tracker.perceive(*tiny_inputs(2))
    told = replace(percept, quality=torch.tensor([0.0, 1.0]))
    measured, changed = tracker.detect(percept), tracker.detect(told)
    assert changed.quality.tolist() == [0.0, 1.0]
    assert changed.frame_weight[0] > measured.frame_weight[0]
    assert changed.frame_weight[1] < measured.frame_weight[1]
    for name in ("visual", "semantic", "semantic_map", "scene", "statistics"):
        assert torch.equal(getattr(changed, name), getattr(measured, name))
    assert not torch.equal(changed.maps[0], measured.maps[0])


def test_a_percept_can_be_described_without_gradient_through_its_features():
    tracker = tiny_tracker().train()
    images, valid, patches = tiny_inputs(2)
    with torch.no_grad():
        features = tracker.features(images, valid)
    percept = tracker.describe(features, frame_statistics(patches))
    (percept.quality.sum() + percept.scene.sum()).backward()
    trained = {n.split(".")[0] for n, p in tracker.named_parameters() if p.grad is not None}
    assert trained == {"quality", "semantics"}


@torch.inference_mode()
def test_nothing_on_the_padding_is_remembered_or_proposed():
    tracker = tiny_tracker(lively=True)
    images, _, patches = tiny_inputs(1)
    encoded = tracker.encode(images, torch.tensor([[64, 64]]), patches)
    for features, stride in zip(encoded.maps, (8, 16, 32), strict=True):
        assert float(features[..., 64 // stride :].abs().max()) == 0
    masks = [torch.arange(96 // s)[None, None] * s < 64 for s in (8, 16, 32)]
    masks = [m.expand(1, 64 // s, -1) for m, s in zip(masks, (8, 16, 32), strict=True)]
    _, proposals = tracker.head(encoded.maps, masks)
    boxes, score = proposals.boxes[0], proposals.logits[0].amax(-1)
    assert (boxes[score > -10][:, 0] < 1).all()


@torch.inference_mode()
def test_a_track_has_the_score_and_the_box_of_the_detection_that_answers_it():
    tracker = tiny_tracker(lively=True)
    encoded = tracker.encode(*tiny_inputs(2))
    _, state = tracker.step(encoded[:1], tracker.initial_state(1))
    decoded = tracker.decode(encoded[1:], state)
    slots = tracker.config.slots
    answered = (decoded.standing[0, :slots] > 0).nonzero()[:, 0]
    assert len(answered) > 3
    people = torch.cat([decoded.logits, decoded.boxes], -1)[0, slots:]
    for track in torch.cat([decoded.logits, decoded.boxes], -1)[0, answered]:
        assert (people - track).abs().amax(-1).min() < 1e-5


@torch.inference_mode()
def test_a_long_seen_track_can_still_fade():
    tracker = tiny_tracker(lively=True)
    images, valid, patches = tiny_inputs(1)
    encoded = tracker.encode(images, valid, patches)
    state = tracker.initial_state(1)
    for _ in range(30):
        _, state = tracker.step(encoded, state)
    assert float(state.logits.abs().max()) <= 2.0


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 128), (160, 96)])
@torch.inference_mode()
def test_any_multiple_of_32_works(height, width):
    tracker = tiny_tracker(lively=True)
    images = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    patches = torch.zeros(2, 8, 64, 64, dtype=torch.uint8)
    encoded = tracker.encode(images, torch.tensor([[height, width]] * 2), patches)
    results, _ = tracker.track(encoded, tracker.initial_state(1))
    assert results[0].boxes.shape == (1, tracker.config.slots, 4)
    assert ((encoded.quality >= 0) & (encoded.quality <= 1)).all()


@torch.inference_mode()
def test_a_smaller_canvas_is_padded_behind_the_encoder():
    tracker = tiny_tracker(lively=True)
    images, _, patches = tiny_inputs(2)
    images, valid = images[..., :64], torch.tensor([[64, 60]] * 2)
    encoded = tracker.encode(images, valid, patches)
    tracker.config = tracker.config.with_input(64, 64)
    alone = tracker.encode(images, valid, patches)
    assert encoded.visual.shape[2:] == (4, 6) and alone.visual.shape[2:] == (4, 4)
    assert torch.equal(encoded.visual[..., :4], alone.visual)
    for features, stride in zip(encoded.maps, (8, 16, 32), strict=True):
        assert features.shape[2:] == (64 // stride, 96 // stride)
        assert not features[..., 64 // stride :].any()
    assert torch.equal(encoded.quality, alone.quality)


@torch.no_grad()
def test_in_training_each_canvas_is_its_own():
    tracker = tiny_tracker().train()
    images, _, patches = tiny_inputs(1)
    encoded = tracker.encode(images[..., :64], torch.tensor([[64, 64]]), patches)
    assert encoded.maps[0].shape[2:] == (8, 8)


def test_sizes_are_what_they_say():
    nano = sum(p.numel() for p in Tracker(SIZES["nano"]).parameters())
    assert nano <= 6_000_000
    assert SIZES["nano"].input_height == 384 and SIZES["nano"].input_width == 640
    larger = [sum(p.numel() for p in Tracker(SIZES[n]).parameters()) for n in ("small", "base")]
    assert nano < larger[0] < larger[1]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"input_height": 100}, "multiple of 32"),
        ({"classes": ()}, "classes: .*not empty"),
        ({"dim": 100}, "multiple of heads"),
        ({"keep_threshold": 1.5}, "a number, 0 to 1"),
    ],
)
def test_impossible_configs_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**setting)
