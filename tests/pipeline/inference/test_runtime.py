"""The student in OpenVINO tracks as in PyTorch; where it cannot, PyTorch does."""

import sys
from dataclasses import fields, replace

import pytest
import torch

from model.track.checkpoint import CheckpointError
from model.track.slots import slot_counts
from model.track.tracker import Tracker
from pipeline.inference import compiled, graphs, openvino_model, runtime
from pipeline.inference.compiled import CompiledGraphs
from pipeline.inference.runtime import RuntimeUnavailable, open_model
from tests.tiny import TINY, tiny_inputs, tiny_tracker

FRAMES = 12


def loader(config=TINY):
    def load():
        tracker = tiny_tracker(lively=True)
        tracker.config = config
        return tracker

    return load


def opened(choice="openvino", device="cpu", config=TINY, load=None, **options):
    load = load or loader(config)
    return open_model(choice, device, config, "of the tiny student", load, **options)


def refuse_conversion(monkeypatch):
    def broken(graph):
        raise RuntimeError("no such operation")

    monkeypatch.setattr(graphs, "convert", broken)


@pytest.fixture(scope="module")
def students():
    """The same student in PyTorch and in OpenVINO."""
    found = opened()
    assert found.runtime.startswith("openvino ")
    return loader()(), found.model


def moving_inputs(frames):
    """A noisy picture that shifts, so that tracks go on from frame to frame."""
    images, valid, patches = tiny_inputs(frames)
    for t in range(1, frames):
        images[t] = images[0].roll(t, dims=2)
    images[:, :, :, 80:] = 0
    return images, valid, patches


def assert_encoded_alike(ours, theirs):
    """What tracking reads of frames: tolerances of the exact runtime."""
    for field in ("semantic", "quality", "statistics"):
        torch.testing.assert_close(
            getattr(theirs, field), getattr(ours, field), rtol=1e-3, atol=1e-4
        )
    pairs = zip(
        (*ours.maps, ours.people.logits, ours.people.boxes, ours.people.embedding),
        (*theirs.maps, theirs.people.logits, theirs.people.boxes, theirs.people.embedding),
        strict=True,
    )
    for mine, other in pairs:
        torch.testing.assert_close(other, mine, rtol=1e-3, atol=1e-3)


@torch.inference_mode()
def test_encoded_frames_are_those_of_pytorch(students):
    inputs = moving_inputs(3)
    assert_encoded_alike(*(student.encode(*inputs) for student in students))


@torch.inference_mode()
def test_ids_are_those_of_pytorch_on_every_frame(students):
    ours, theirs = (
        student.track(student.encode(*moving_inputs(FRAMES)), student.initial_state(1))
        for student in students
    )
    seen = 0
    for mine, other in zip(ours[0], theirs[0], strict=True):
        assert torch.equal(other.track_id, mine.track_id)
        assert torch.equal(other.labels, mine.labels)
        there = mine.track_id >= 0
        seen += int(there.sum())
        torch.testing.assert_close(other.boxes[there], mine.boxes[there], rtol=0, atol=0.02)
        torch.testing.assert_close(other.scores[there], mine.scores[there], rtol=0, atol=1e-3)
    assert seen > FRAMES, "the test tracks nothing"
    for name in ("track_id", "active", "misses", "next_id"):
        assert torch.equal(getattr(theirs[1], name), getattr(ours[1], name))


@torch.inference_mode()
def test_unseen_tracks_age_as_in_pytorch(students):
    """Over frames that were carried before some of a window."""
    found = []
    for student in students:
        encoded = student.encode(*moving_inputs(3))
        _, state = student.track(encoded, student.initial_state(1))
        unseen = replace(state, misses=state.active.long() * TINY.miss_tolerance)
        counts = [[0, 0, 0], [1, 0, 0], [0, 0, 7]]
        found.append([student.track(encoded, unseen, None, carried) for carried in counts])
    ended = []
    for ours, theirs in zip(*found, strict=True):
        for mine, other in zip(ours[0], theirs[0], strict=True):
            assert torch.equal(other.track_id, mine.track_id)
        assert torch.equal(theirs[1].misses, ours[1].misses)
        ended.append(int(ours[1].next_id))
    assert ended[1] > ended[0], "no identity came to an end"


@torch.inference_mode()
def test_the_window_changes_not_one_bit(students):
    student = students[1]
    inputs = moving_inputs(6)
    whole, _ = student.track(student.encode(*inputs), student.initial_state(1))
    state, parts = student.initial_state(1), []
    for part in (slice(0, 1), slice(1, 5), slice(5, 6)):
        results, state = student.track(student.encode(*(x[part] for x in inputs)), state)
        parts += results
    for a, b in zip(whole, parts, strict=True):
        assert all(torch.equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))


def test_kept_graphs_need_neither_the_student_nor_a_conversion(students):
    def load():
        raise AssertionError("the student was loaded")

    assert opened(load=load).runtime == opened().runtime


def test_other_thresholds_need_no_conversion_and_hold(students, monkeypatch):
    refuse_conversion(monkeypatch)
    found = opened("openvino", config=replace(TINY, birth_threshold=1.0))
    with torch.inference_mode():
        encoded = found.model.encode(*moving_inputs(2))
        results, _ = found.model.track(encoded, found.model.initial_state(1))
    assert all((r.track_id < 0).all() for r in results)


@torch.inference_mode()
def test_another_canvas_has_graphs_of_its_own(students):
    inputs = moving_inputs(3)
    images, valid, patches = inputs
    images = torch.nn.functional.pad(images, (0, 32))
    ours, theirs = (student.encode(images, valid, patches) for student in students)
    assert_encoded_alike(ours, theirs)
    again = students[1].encode(*inputs)
    assert_encoded_alike(students[0].encode(*inputs), again)


@torch.inference_mode()
def test_a_smaller_canvas_is_tracked_as_in_pytorch(students):
    images, _, patches = moving_inputs(FRAMES)
    valid = torch.tensor([[64, 60]] * FRAMES)
    ours, theirs = (
        student.track(student.encode(images[..., :64], valid, patches), student.initial_state(1))
        for student in students
    )
    for mine, other in zip(ours[0], theirs[0], strict=True):
        assert torch.equal(other.track_id, mine.track_id)
        there = mine.track_id >= 0
        torch.testing.assert_close(other.boxes[there], mine.boxes[there], rtol=0, atol=0.02)
    assert int(ours[1].next_id) > 1, "the test tracks nothing"


@torch.inference_mode()
def test_a_canvas_that_no_graph_can_have_is_refused(students):
    images, valid, patches = tiny_inputs(1)
    with pytest.raises(ValueError, match=r"images are 40 x 96 pixels.*multiples of 32"):
        students[1].encode(images[:, :, :40], valid, patches)


def test_a_conversion_is_told_before_it_begins_and_kept_graphs_are_not(students, monkeypatch):
    refuse_conversion(monkeypatch)
    told = []
    assert opened("openvino", notice=told.append).runtime.endswith(", exact")
    assert not told
    opened("auto", config=replace(TINY, velocity_rate=0.1), notice=told.append)
    assert told == ["converting the model for this CPU, once, about 10 s"]


def test_the_picture_of_the_first_video_chooses_the_graphs(monkeypatch):
    asked = []
    monkeypatch.setattr(CompiledGraphs, "open", lambda self, name, *rest: asked.append(name))
    monkeypatch.setattr(openvino_model, "_Encoder", lambda dense, detect: None)
    opened("openvino", canvas=(64, 64))
    # Behind the dense part maps are padded to the canvas of the config.
    assert asked == ["dense-64x64", "detect-64x96", f"step-64x96-{slot_counts(TINY.slots)[0]}"]


@torch.inference_mode()
@pytest.mark.parametrize(
    ("has_bf16", "runtime"),
    [(True, ", fast"), (False, ", exact: this CPU has no bf16, which fast needs")],
)
def test_fast_is_bf16_in_the_dense_part_where_the_cpu_has_it(monkeypatch, has_bf16, runtime):
    numbers = {}
    original = CompiledGraphs.open

    def spy(self, name, of, number="f32"):
        numbers[name.split("-")[0]] = number
        return original(self, name, of)  # a CPU of this test may have no bf16

    monkeypatch.setattr(CompiledGraphs, "open", spy)
    monkeypatch.setattr(compiled, "has_bf16", lambda core: has_bf16)
    found = opened("auto", precision="fast")
    assert found.runtime.endswith(runtime)
    number = "bf16" if has_bf16 else "f32"
    assert numbers == {"dense": number, "detect": "f32", "step": "f32"}


def test_fast_in_pytorch_is_exact_and_says_so():
    found = opened("torch", precision="fast")
    assert isinstance(found.model, Tracker)
    assert found.runtime.endswith(", exact: fast needs OpenVINO here")


def test_auto_falls_back_to_pytorch_and_says_why(monkeypatch):
    refuse_conversion(monkeypatch)
    # No graph of it is kept.
    other = replace(TINY, keep_threshold=0.123, velocity_rate=0.3)
    found = opened("auto", config=other)
    assert isinstance(found.model, Tracker)
    assert found.model.config.keep_threshold == 0.123
    assert found.runtime.startswith("torch ")
    assert "OpenVINO cannot take this model (RuntimeError: no such operation)" in found.runtime
    with pytest.raises(RuntimeUnavailable, match="OpenVINO cannot take"):
        opened("openvino", config=other)


def test_without_openvino_auto_is_pytorch_and_openvino_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    assert isinstance(opened("auto").model, Tracker)
    assert "not installed" in opened("auto").runtime
    with pytest.raises(RuntimeUnavailable, match="pip install openvino"):
        opened("openvino")


def test_a_gpu_runs_pytorch_and_refuses_openvino():
    assert isinstance(opened("auto", device="cuda").model, Tracker)
    with pytest.raises(RuntimeUnavailable, match="runs on CPUs"):
        opened("openvino", device="cuda")


def test_weights_that_cannot_be_used_are_no_reason_to_fall_back():
    def load():
        raise CheckpointError("damaged")

    with pytest.raises(CheckpointError, match="damaged"):
        opened("auto", config=replace(TINY, velocity_rate=0.4), load=load)


def test_the_graphs_take_one_stream(students):
    with pytest.raises(ValueError, match="take one stream"):
        students[1].initial_state(2)
