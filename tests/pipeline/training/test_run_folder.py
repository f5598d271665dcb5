"""The folder of a training run: which settings may go on in it."""

import json

import pytest

from pipeline.training.run_folder import STATE, RunFolder


def test_a_folder_that_is_a_run_without_a_state_may_be_claimed_anew(tmp_path):
    folder = RunFolder(str(tmp_path / "run"))
    folder.claim({"a": {"b": 1}, "c": 2}, ["c"])
    folder.claim({"a": {"b": 2}, "c": 2}, ["c"])
    folder.write(STATE, b"something")
    folder.claim({"a": {"b": 2}, "c": 3}, ["c"])
    with pytest.raises(ValueError, match=r"a\.b: 2 in the folder, 1 now"):
        folder.claim({"a": {"b": 1}, "c": 3}, ["c"])
    assert json.loads(folder.read("config.json") or b"")["a"]["b"] == 2
