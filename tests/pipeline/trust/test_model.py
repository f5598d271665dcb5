"""The model of trust: a file that is read back or refused, and that holds for its weights alone."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from model.shipped import shipped
from model.track.checkpoint import file_sha256, read_metadata
from pipeline.storage import files
from pipeline.storage.errors import StorageError
from pipeline.storage.run_record import config_hash
from pipeline.tracking.config import TrackConfig, TrackerConfig
from pipeline.tracking.settings import worker_settings
from pipeline.trust.features import NAMES
from pipeline.trust.model import TrustError, TrustModel, find_trust, trust_uri
from tests.pipeline.trust.test_sums import any_model

THRESHOLDS = any_model().thresholds


def test_chance_is_logistic_and_ends_with_the_range_seen():
    model = any_model(mean=(1.0,) * len(NAMES), scale=(2.0,) * len(NAMES), intercept=0.5)
    given = np.zeros((3, len(NAMES)))
    given[1, 0], given[2, 0] = 5, 500
    usual, end, beyond = model(given)
    assert usual == pytest.approx(1 / (1 + math.exp(-0.5 + len(NAMES) / 2)))
    assert end == beyond > usual


def test_model_is_read_back_with_its_hash():
    model = any_model(fitted={"tracks": {"a": 3}})
    again = TrustModel.decode(model.encode(), "f")
    assert again == model and again.sha256 == model.sha256
    assert replace(model, intercept=0.1).sha256 != model.sha256


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"features": ["boxes"]},
        {"scale": [0.0] * len(NAMES)},
        {"coefficients": [1.0]},
        {"intercept": "x"},
        {"mean": [float("nan")] * len(NAMES)},
        {"thresholds": {}},
        {"more": 1},
    ],
)
def test_a_file_of_another_kind_is_refused_with_the_remedy(change):
    data = json.dumps(json.loads(any_model().encode()) | change).encode()
    with pytest.raises(TrustError, match=r"^a\.json is no model .*fit it again"):
        TrustModel.decode(data, "a.json")


def test_no_json_is_refused():
    with pytest.raises(TrustError, match=r"a\.json is no model"):
        TrustModel.decode(b"[]", "a.json")
    with pytest.raises(TrustError, match=r"a\.json is no model"):
        TrustModel.decode(b"\xff", "a.json")


def test_a_model_holds_for_its_weights_and_thresholds_alone(tmp_path):
    weights = str(tmp_path / "w.safetensors")
    assert "there is no" in find_trust(weights, "a" * 64, THRESHOLDS).reason
    (tmp_path / "w.trust.json").write_bytes(any_model().encode())
    assert find_trust(weights, "a" * 64, THRESHOLDS).model == any_model()
    other = find_trust(weights, "b" * 64, THRESHOLDS)
    assert other.model is None and "other weights" in other.reason
    eager = find_trust(weights, "a" * 64, THRESHOLDS | {"birth_threshold": 0.1})
    assert eager.model is None and "tracker.birth_threshold" in eager.reason


def test_model_of_trust_decides_results(weights, tmp_path):
    own = tmp_path / "w.safetensors"
    own.write_bytes(weights.read_bytes())
    config = TrackConfig(input="in", output=str(tmp_path / "out"), weights=str(own))
    settings, before = worker_settings(config)
    assert settings.trust.model is None and before["trust"] is None
    model = read_metadata(own).model
    trust = any_model(
        weights_sha256=file_sha256(own),
        thresholds={name: getattr(model, name) for name in THRESHOLDS},
    )
    (tmp_path / "w.trust.json").write_bytes(trust.encode())
    settings, after = worker_settings(config)
    assert settings.trust.model == trust and after["trust"] == trust.sha256
    assert config_hash(before) != config_hash(after) == settings.config_hash
    eager = replace(config, tracker=TrackerConfig(birth_threshold=0.01))
    assert worker_settings(eager)[0].trust.model is None


def test_the_shipped_model_is_of_the_shipped_weights():
    weights = shipped("weights/vsdmot-nano.safetensors")
    config = read_metadata(weights).model
    thresholds = {name: getattr(config, name) for name in THRESHOLDS}
    model = find_trust(str(weights), file_sha256(weights), thresholds).model
    assert model is not None, f"{trust_uri(str(weights))} is to be fitted again"
    # Surer tracks without gaps are trusted more.
    low, high = np.array(model.low), np.array(model.high)
    middle = (low + high) / 2
    for name in ("score", "seen"):
        place = NAMES.index(name)
        pair = np.stack([middle, middle])
        pair[0, place], pair[1, place] = low[place], high[place]
        less, more = model(pair)
        assert 0 < less < more < 1


def test_without_the_right_to_look_there_is_no_trust(monkeypatch):
    def forbidden(uri):
        raise StorageError(f"cannot look for {uri}") from PermissionError("403")

    monkeypatch.setattr(files, "exists", forbidden)
    found = find_trust("s3://bucket/a.safetensors", "a" * 64, THRESHOLDS)
    assert found.model is None
    assert found.reason == "s3://bucket/a.trust.json is not there, or may not be read"
