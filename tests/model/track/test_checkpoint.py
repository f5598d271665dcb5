import json

import pytest
import torch
from safetensors.torch import save_file

from model.net.config import ModelConfig
from model.track.checkpoint import (
    FORMAT,
    CheckpointError,
    CheckpointMetadata,
    file_sha256,
    read_metadata,
    save_tracker,
)
from model.track.tracker import Tracker
from tests.tiny import TINY, tiny_tracker


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "tiny.safetensors"
    metadata = CheckpointMetadata(
        TINY, training={"steps": 3}, teacher="none", code_version="1", metrics={"HOTA": 12.5}
    )
    save_tracker(path, tiny_tracker(), metadata)
    return path


def test_weights_and_metadata_come_back(saved):
    tracker, metadata = Tracker.load(saved)
    assert metadata == read_metadata(saved)
    assert metadata.model == TINY and metadata.metrics == {"HOTA": 12.5}
    assert not tracker.training
    for name, value in tiny_tracker().state_dict().items():
        assert torch.equal(tracker.state_dict()[name], value)
    assert not list(saved.parent.glob("*.partial"))


def test_the_same_weights_have_the_same_hash(saved, tmp_path):
    again = tmp_path / "again.safetensors"
    save_tracker(again, tiny_tracker(), read_metadata(saved))
    assert file_sha256(again) == file_sha256(saved)


def broken(path, kind):
    if kind == "missing":
        return path.with_name("none.safetensors")
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "pickle":
        torch.save({"a": torch.zeros(1)}, path)
    elif kind == "foreign":
        save_file({"a": torch.zeros(1)}, path)
    elif kind == "newer":
        save_file({"a": torch.zeros(1)}, path, {"vsdmot": '{"model": {}, "format": 99}'})
    elif kind == "unknown setting":
        save_file(
            {"a": torch.zeros(1)},
            path,
            {"vsdmot": json.dumps({"model": {"colour": 1}, "format": FORMAT})},
        )
    elif kind == "other shapes":
        block = json.dumps({"model": TINY.to_dict(), "format": FORMAT})
        save_file({"a": torch.zeros(1)}, path, {"vsdmot": block})
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such weights file"),
        ("truncated", "not a readable safetensors"),
        ("pickle", "not a readable safetensors"),
        ("foreign", "another project"),
        ("newer", "weights that came with"),
        ("unknown setting", "colour"),
        ("other shapes", "do not fit"),
    ],
)
def test_unusable_files_are_refused_by_name_and_reason(saved, kind, message):
    path = broken(saved, kind)
    with pytest.raises(CheckpointError, match=message) as caught:
        Tracker.load(path)
    assert str(path) in str(caught.value)


def test_a_config_survives_json():
    assert ModelConfig.from_dict(json.loads(json.dumps(TINY.to_dict()))) == TINY
