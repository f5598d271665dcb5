"""Rows of scores from known predictions: what counts in the means, and what stays apart."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("trackeval")
pytest.importorskip("pycocotools")

from pipeline.evaluation import Predictions, score
from pipeline.mot import Boxes, Sequence


def sequence(name: str) -> Sequence:
    frame = np.arange(1, 11)
    xywh = np.stack([frame * 4.0, frame * 0 + 9.0, frame * 0 + 20.0, frame * 0 + 50.0], axis=1)
    gt = Boxes.of(frame, 1, xywh)
    return Sequence(name, Path(name), Path(name) / "video.mp4", 25.0, 10, 640, 480, gt, None)


def predictions(truth: Boxes, share: float, problem: str | None = None) -> Predictions:
    """The first `share` of the truth is found, with scores that fall to 0.1."""
    seen = truth[: int(len(truth) * share)]
    scores = np.linspace(1, 0.1, len(seen))
    tracks = Boxes.of(seen.frame, 7, seen.xywh, scores)
    return Predictions(tracks, Boxes.of(seen.frame, -1, seen.xywh, scores), 10, 2.0, problem)


def test_mean_and_combined_leave_out_what_stands_apart():
    sequences = {name: sequence(name) for name in ("a", "b", "night")}
    shares = {"a": 1.0, "b": 0.5, "night": 0.0}
    said = {name: predictions(s.gt, shares[name]) for name, s in sequences.items()}
    rows = {r["sequence"]: r for r in score(sequences, said, ["night"], 0.5, True)}
    assert list(rows) == ["a", "b", "night", "MEAN", "COMBINED"]
    assert [rows[n]["mota"] for n in ("a", "b", "night")] == pytest.approx([100, 50, 0])
    assert rows["night"]["apart"]
    assert rows["MEAN"]["mota"] == pytest.approx(75)
    assert rows["COMBINED"]["mota"] == pytest.approx(75)
    assert rows["COMBINED"]["gt_boxes"] == 20
    assert rows["COMBINED"]["frames_per_second"] == pytest.approx(5)
    assert rows["a"]["recall"] == pytest.approx(100)
    assert rows["a"]["recall_at_score"] == pytest.approx(60)


def test_with_all_apart_there_is_no_mean():
    one = sequence("a")
    rows = score({"a": one}, {"a": predictions(one.gt, 1.0, "9 frames decoded")}, ["a"], 0.5, False)
    assert [row["sequence"] for row in rows] == ["a"]
    assert rows[0]["problem"] == "9 frames decoded"
