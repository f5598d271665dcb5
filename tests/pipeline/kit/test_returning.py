"""What comes back of a kit: pieces of files, rounded weights, a state that is taken up."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load

from model.learn.clip_loss import ClipObjective
from model.learn.training import Trainer, train
from model.learn.training_state import read_position
from model.track.checkpoint import (
    CheckpointMetadata,
    checkpoint_bytes,
)
from pipeline.kit import returning
from pipeline.kit.pieces import PieceError, read_pieces, write_pieces
from pipeline.kit.returning import ReturnError, check_size, compact, expand, read_back, write_back
from tests.tiny import TINY, tiny_tracker
from tests.training_parts import CONFIG, clip_stream


@pytest.fixture(scope="module")
def trained(shards):
    """A tiny training after two steps."""
    config = replace(CONFIG, steps=2)
    trainer = Trainer(tiny_tracker(), ClipObjective(), config, "cpu")
    stream = clip_stream(shards)
    batches = (stream.collate([stream.items[i] for i in (2 * s, 2 * s + 1)]) for s in range(2))
    train(trainer, batches, lambda t: None, lambda p: None)
    return trainer


def test_pieces_join_to_the_same_bytes(tmp_path):
    data = bytes(range(256)) * 11
    write_pieces(tmp_path, "w", data * 2, 100)
    write_pieces(tmp_path, "w", data, 100)  # fewer pieces than before
    assert len(list(tmp_path.iterdir())) == 29 and read_pieces(tmp_path, "w") == data
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())
    (tmp_path / "w.3").unlink()
    with pytest.raises(PieceError, match=r"w\.3 is missing; copy all files from the GPU machine"):
        read_pieces(tmp_path, "w")
    with pytest.raises(PieceError, match=r"v\.0 is missing"):
        read_pieces(tmp_path, "v")


def test_weights_come_back_rounded_once_and_keep_what_they_say():
    metadata = CheckpointMetadata(model=TINY, training={"frames": 7})
    data = checkpoint_bytes(tiny_tracker().state_dict(), metadata)
    back = expand(compact(data))
    assert len(compact(data)) < 0.7 * len(data)
    assert compact(back) == compact(data), "nothing is lost a second time"
    before, after = load(data), load(back)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.dtype == after[name].dtype
        if value.ndim > 1 and value.is_floating_point():
            assert bool((after[name] - value).abs().le(2.0**-8 * value.abs()).all()), name
        else:
            assert torch.equal(after[name], value), name
    assert returning.file_metadata(back) == returning.file_metadata(data)


def test_a_state_comes_back_and_is_taken_up(tmp_path, trained, monkeypatch):
    monkeypatch.setattr(returning, "FILE_BYTES", 400_000)
    metadata = CheckpointMetadata(model=TINY, training={"steps": 2})
    data = checkpoint_bytes(trained.averaged().state_dict(), metadata)
    write_back(tmp_path, compact(data), trained.save())
    assert len(list(tmp_path.iterdir())) > 4
    weights, state = read_back(tmp_path)
    assert compact(weights) == compact(data)
    other = Trainer(tiny_tracker(1), ClipObjective(), trained.config, "cpu")
    other.resume(state, "back")
    assert other.position == trained.position == read_position(state)
    for name, value in trained.tracker.state_dict().items():
        assert torch.allclose(other.tracker.state_dict()[name], value, rtol=2.0**-8, atol=0)
    for name, value in load(weights).items():
        assert torch.equal(other.average.values[name], value)
    mine, theirs = (t.optimizer.state_dict()["state"] for t in (other, trained))
    assert mine.keys() == theirs.keys()
    for key, moments in theirs.items():
        assert mine[key].keys() == moments.keys()
        for name, value in moments.items():
            assert torch.allclose(mine[key][name], value, rtol=2.0**-8, atol=1e-37)
    last = max(tmp_path.glob("state.safetensors.*"), key=lambda p: int(p.suffix[1:]))
    last.unlink()
    with pytest.raises(ReturnError, match=r"pieces of state\.safetensors do not make a file"):
        read_back(tmp_path)


def test_how_much_comes_back_is_known_before(tmp_path, trained, monkeypatch):
    data = checkpoint_bytes(trained.averaged().state_dict(), CheckpointMetadata(model=TINY))
    write_back(tmp_path, compact(data), trained.save())
    written = sum(path.stat().st_size for path in tmp_path.iterdir())
    monkeypatch.setattr(returning, "ALL_BYTES", written + returning.LOG_BYTES - 1)
    with pytest.raises(ReturnError, match="MB can be returned"):
        check_size(trained)
    monkeypatch.setattr(returning, "ALL_BYTES", int(1.25 * written) + returning.LOG_BYTES)
    check_size(trained)
