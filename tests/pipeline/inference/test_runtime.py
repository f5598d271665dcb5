"""The student in OpenVINO tracks as in PyTorch; where it cannot, PyTorch does."""

import sys
from dataclasses import fields, replace

import pytest
import torch

from model.track.checkpoint import CheckpointError
from model.track.tracker import Tracker
from pipeline.inference import graphs, runtime
from pipeline.inference.runtime import RuntimeUnavailable, open_model
from tests.tiny import TINY, tiny_inputs, tiny_tracker

FRAMES = 12


def loader(config=TINY):
    def load():
        tracker = tiny_tracker(lively=True)
        tracker.config = config
        return tracker

    return load


def opened(choice="openvino", device="cpu", config=TINY, load=None):
    return open_model(choice, device, config, "of the tiny student", load or loader(config))


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


@torch.inference_mode()
def test_encoded_frames_are_those_of_pytorch(students):
    inputs = moving_inputs(3)
    ours, theirs = (student.encode(*inputs) for student in students)
    for field in fields(ours):
        if field.name in ("maps", "detections", "dense"):
            continue
        torch.testing.assert_close(
            getattr(theirs, field.name), getattr(ours, field.name), rtol=1e-3, atol=1e-4
        )
    pairs = zip(
        (*ours.maps, ours.detections.logits, ours.detections.boxes, ours.detections.embedding,
         ours.dense.logits, ours.dense.boxes),
        (*theirs.maps, theirs.detections.logits, theirs.detections.boxes,
         theirs.detections.embedding, theirs.dense.logits, theirs.dense.boxes),
        strict=True,
    )  # fmt: skip
    for mine, other in pairs:
        torch.testing.assert_close(other, mine, rtol=1e-3, atol=1e-3)
    for name in ("centres", "strides", "valid"):
        assert torch.equal(getattr(theirs.dense, name), getattr(ours.dense, name))


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


def test_thresholds_are_part_of_the_graphs(students, monkeypatch):
    """Other thresholds are other graphs, or a run would track with those of an earlier one."""
    asked = []

    def refuse(graph):
        asked.append(graph)
        raise RuntimeError("no conversion in this test")

    monkeypatch.setattr(graphs, "convert", refuse)
    found = opened("auto", config=replace(TINY, birth_threshold=0.9))
    assert len(asked) == 1
    assert isinstance(found.model, Tracker)


@torch.inference_mode()
def test_another_canvas_is_refused(students):
    images, valid, patches = tiny_inputs(1)
    with pytest.raises(ValueError, match=r"images are \(32, 96\), the graphs take \(64, 96\)"):
        students[1].encode(images[:, :, :32], valid, patches)


def test_auto_falls_back_to_pytorch_and_says_why(monkeypatch):
    def broken(graph):
        raise RuntimeError("no such operation")

    monkeypatch.setattr(graphs, "convert", broken)
    other = replace(TINY, keep_threshold=0.123)  # no graph of it is kept
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
        opened("auto", config=replace(TINY, keep_threshold=0.321), load=load)


def test_the_graphs_take_one_stream(students):
    with pytest.raises(ValueError, match="take one stream"):
        students[1].initial_state(2)
