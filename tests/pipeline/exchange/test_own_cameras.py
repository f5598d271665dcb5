"""The loop from tracks over corrections to a better student, as examples/own_cameras.py goes it."""

import importlib.util
from dataclasses import replace

import pytest

from model.net.config import SIZES
from model.track.checkpoint import CheckpointMetadata, save_tracker
from pipeline.datasets.shards import Shards
from tests import ROOT
from tests.tiny import TINY, tiny_tracker


@pytest.fixture
def own_cameras():
    spec = importlib.util.spec_from_file_location("own_cameras", ROOT / "examples/own_cameras.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_loop_runs_from_end_to_end(own_cameras, tmp_path, monkeypatch, capsys):
    small = replace(TINY, size="nano")
    monkeypatch.setitem(SIZES, "nano", small)
    # Converting each student to OpenVINO would take longer than all else.
    monkeypatch.setattr(own_cameras, "HERE", (*own_cameras.HERE, "model.runtime=torch"))
    weights = str(tmp_path / "small.safetensors")
    save_tracker(weights, tiny_tracker(lively=True), CheckpointMetadata(model=small))
    before, after = own_cameras.main(tmp_path, steps=1, weights=weights, frames=6)
    assert 0 <= before <= 100 and 0 <= after <= 100
    said = capsys.readouterr().out
    assert "SYNTH-01: " in said and " people added" in said
    sequences = Shards(tmp_path / "shards").sequences
    assert [s.name for s in sequences] == ["SYNTH-01.mp4", "SYNTH-02.mp4"]
    for sequence in sequences:
        truth = own_cameras.read_sequence(tmp_path / "drawn" / sequence.name[:-4]).gt
        assert sum(len(frame.boxes) for frame in sequence.frames) == len(truth)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_corrections_make_the_student_better(own_cameras, tmp_path):
    before, after = own_cameras.main(tmp_path)
    assert after > before + 10
