"""`model.precision`: fast decides results, exact does not."""

import json

import pytest

from model.track.checkpoint import file_sha256
from pipeline.storage.run_record import RunRefused, claim_output, config_hash, record_runtime
from pipeline.tracking.config import RuntimeConfig, TrackConfig
from pipeline.tracking.settings import worker_settings


def settings_of(weights, output, **model):
    config = TrackConfig(str(output), str(output), str(weights), model=RuntimeConfig(**model))
    return worker_settings(config)


def test_fast_enters_the_hash_and_exact_and_the_runtime_do_not(weights, tmp_path):
    exact, deciding = settings_of(weights, tmp_path)
    assert exact.precision == "exact"
    assert exact.config_hash == settings_of(weights, tmp_path, runtime="torch")[0].config_hash
    assert deciding["weights"] == file_sha256(weights)
    fast, of_fast = settings_of(weights, tmp_path, precision="fast")
    assert fast.precision == "fast"
    assert of_fast == {**deciding, "model.precision": "fast"}
    assert fast.config_hash == config_hash(of_fast) != exact.config_hash


def test_a_folder_of_exact_rows_takes_no_fast_ones(weights, tmp_path):
    output = str(tmp_path / "out")
    claim_output(output, "track", settings_of(weights, tmp_path)[1], {})
    with pytest.raises(RunRefused, match=r'model\.precision: .*"fast" now'):
        claim_output(output, "track", settings_of(weights, tmp_path, precision="fast")[1], {})


def test_the_runtime_with_its_precision_is_in_the_record_once(weights, tmp_path):
    output = str(tmp_path / "out")
    claim_output(output, "track", settings_of(weights, tmp_path)[1], {})
    for name in ("openvino 1, fast", "openvino 1, fast", "torch 2, exact: no bf16"):
        record_runtime(output, name)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["runtimes"] == ["openvino 1, fast", "torch 2, exact: no bf16"]
