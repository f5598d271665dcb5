"""Which tracks are right, how chances are measured, and what fitting them gives."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.measure import main
from model.track.checkpoint import file_sha256
from pipeline.benchmark.trust import passes
from pipeline.benchmark.trust.calibration import calibration
from pipeline.benchmark.trust.fit import cross_validated, fit
from pipeline.benchmark.trust.passes import stretches
from pipeline.benchmark.trust.right import judge
from pipeline.benchmark.trust.samples import Samples
from pipeline.datasets.boxes import Boxes
from pipeline.datasets.mot import read_sequence
from pipeline.datasets.synthetic import make_synthetic
from pipeline.degrade.conditions import conditions
from pipeline.trust.features import NAMES
from pipeline.trust.model import TrustError, TrustModel
from tests.pipeline.benchmark.test_long_measure import BOX, OTHER, boxes

NOWHERE = [400, 0, 9, 9]


@pytest.mark.parametrize(
    ("rows", "right"),
    [
        ([(1, 20, BOX)], True),
        ([(1, 10, BOX), (11, 20, NOWHERE)], True),  # half of it on one person
        ([(1, 9, BOX), (10, 20, NOWHERE)], False),
        ([(1, 18, BOX), (19, 20, OTHER)], True),  # a tenth on another
        ([(1, 17, BOX), (18, 20, OTHER)], False),
        ([(1, 20, NOWHERE)], False),
    ],
)
def test_a_right_track_is_one_person_with_one_identity(rows, right):
    gt = boxes((1, 20, 1, BOX), (1, 20, 2, OTHER))
    tracks = boxes(*((first, last, 7, box) for first, last, box in rows))
    judged = judge(gt, tracks, np.array([7]))
    assert judged.counted.tolist() == [True] and judged.right.tolist() == [right]


def test_two_tracks_on_one_person_share_its_boxes():
    gt = boxes((1, 20, 1, BOX))
    near = [12, 10, 20, 40]
    tracks = boxes((1, 20, 7, BOX), (1, 20, 8, near))
    assert judge(gt, tracks, np.array([7, 8])).right.tolist() == [True, False]


def test_what_is_not_evaluated_counts_neither_way():
    """Of three tracks one is on a distractor, one for a third of its time, and one on a person."""
    people = boxes((1, 30, 1, BOX))
    other = Boxes.of(np.arange(1, 31), 2, np.tile(OTHER, (30, 1)), 0, 12)
    columns = ("frame", "track_id", "xywh", "confidence", "class_id", "visibility")
    gt = Boxes.of(*(np.concatenate([getattr(people, c), getattr(other, c)]) for c in columns))
    tracks = boxes((1, 20, 7, OTHER), (21, 30, 8, OTHER), (1, 20, 8, BOX), (21, 30, 9, BOX))
    judged = judge(gt, tracks, np.array([7, 8, 9]))
    assert judged.counted.tolist() == [False, True, True]
    assert judged.right.tolist() == [False, True, True]


def test_error_is_none_for_true_chances_and_large_for_wrong_ones():
    random = np.random.default_rng(0)
    chance = random.random(20_000)
    right = random.random(20_000) < chance
    good = calibration(chance, right)
    assert good.error < 0.03 and good.brier == pytest.approx(1 / 6, abs=0.01)
    assert good.area == pytest.approx(5 / 6, abs=0.01)
    assert good.bins[:, 2].sum() == 20_000
    few = calibration(chance[:150], right[:150])
    assert len(few.bins) == 5 and 0.03 < few.error_by_chance < 0.1
    assert good.error_by_chance < 0.02
    assert calibration(1 - chance, right).error == pytest.approx(0.5, abs=0.03)
    assert calibration(np.full(4, 0.5), np.array([0, 1, 0, 1])).brier == 0.25
    assert np.isnan(calibration(np.ones(3), np.ones(3)).area)


def drawn(count, seed=0):
    """Tracks of four sequences that are right by the first feature alone."""
    random = np.random.default_rng(seed)
    values = random.normal(0, 1, (count, len(NAMES)))
    right = random.random(count) < 1 / (1 + np.exp(-3 * values[:, 0]))
    return Samples(values, right, np.zeros(count, bool), np.arange(count) % 4)


def test_fit_finds_what_decides():
    given, fresh = drawn(2000), drawn(2000, 1)
    model = fit(given, "a", {}, {})
    weight = np.abs(model.coefficients)
    assert weight[0] > 5 * weight[1:].max()
    assert calibration(model(fresh.features), fresh.right).error < 0.06
    assert calibration(cross_validated(given), given.right).error < 0.06


def test_a_track_is_not_judged_by_a_model_that_has_seen_its_sequence():
    """Where one sequence is labelled the other way round, only its own model could know."""
    given = drawn(400)
    odd = given.sequence == 3
    turned = replace(given, right=given.right ^ odd)
    chance = cross_validated(turned)
    area = calibration(chance[odd], turned.right[odd]).area
    assert area < 0.3


def test_nothing_to_tell_apart_is_refused():
    with pytest.raises(TrustError, match="of 5 tracks 5 are right"):
        fit(replace(drawn(5), right=np.ones(5, bool)), "a", {}, {})


def test_each_degradation_has_a_part_of_its_own(tmp_path):
    sequence = read_sequence(make_synthetic(tmp_path, 1, 40) / "SYNTH-01")
    found = stretches([sequence], conditions(["noise"], (1, 3, 5), (0,)), 10)
    assert [(s.condition.name, s.first, s.end) for s in found] == [
        ("clean", 0, 40), ("noise-1", 0, 10), ("noise-3", 15, 25), ("noise-5", 30, 40),
    ]  # fmt: skip


def test_fit_and_measure_by_the_command(tmp_path, weights, monkeypatch, capsys):
    own = Path(shutil.copy(weights, tmp_path / "w.safetensors"))
    data = make_synthetic(tmp_path / "data", 2, 12)
    common = [
        "what=trust", f"data={data}", f"weights={own}", f"output={tmp_path / 'out'}", "frames=6",
        "kinds=[noise]", "severities=[5]",
    ]  # fmt: skip
    # A student of random weights has no right track, so every other one is called right.
    monkeypatch.setattr("pipeline.benchmark.trust.samples.judge", every_other)
    assert main([*common, f"fit={tmp_path / 'w.trust.json'}"]) == 0
    model = TrustModel.decode((tmp_path / "w.trust.json").read_bytes(), "w")
    assert model.weights_sha256 == file_sha256(own)
    assert set(model.fitted["tracks"]) == {"SYNTH-01", "SYNTH-02"}

    def again(*_):
        raise AssertionError("a pass was computed twice")

    monkeypatch.setattr(passes, "_tracked", again)
    capsys.readouterr()
    assert main(common) == 0
    rows = json.loads((tmp_path / "out" / "trust.json").read_text())["rows"]
    assert [(r["group"], r.get("kept")) for r in rows[:3]] == [
        ("all", None), ("clean", None), ("degraded", None),
    ]  # fmt: skip
    assert [r["kept"] for r in rows[3:6]] == ["all", "trust", "score"]
    assert len(pq.read_table(tmp_path / "out" / "trust.parquet")) == len(rows)
    assert b"<svg" in (tmp_path / "out" / "trust.svg").read_bytes()
    assert "expected error" in capsys.readouterr().out


def every_other(gt, tracks, ids):
    """As `judge`, without looking."""
    judged = judge(gt, tracks, ids)
    return replace(judged, right=np.arange(len(ids)) % 2 == 0, counted=np.ones(len(ids), bool))


def test_no_model_beside_the_weights_is_told_with_the_command(tmp_path, weights, capsys):
    data = make_synthetic(tmp_path / "data", 1, 4)
    with pytest.raises(SystemExit) as ended:
        main(["what=trust", f"data={data}", f"weights={weights}", f"output={tmp_path}", "kinds=[]"])
    assert ended.value.code == 1
    words = " ".join(capsys.readouterr().err.split())
    assert "there is no" in words and "what=trust" in words and "fit=" in words
    assert not (tmp_path / "passes").exists()  # it is told before anything is tracked


def test_a_single_sequence_has_no_other_to_judge_it_by(tmp_path, weights, monkeypatch, capsys):
    data = make_synthetic(tmp_path / "data", 1, 8)
    monkeypatch.setattr("pipeline.benchmark.trust.samples.judge", every_other)
    given = [f"data={data}", f"weights={weights}", f"output={tmp_path}", "kinds=[]"]
    assert main(["what=trust", *given, f"fit={tmp_path / 'w.trust.json'}"]) == 0
    assert "tracks have no chance, because the other sequences" in capsys.readouterr().out
