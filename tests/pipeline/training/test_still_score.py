"""AP50 without pycocotools, and the score a training gives itself."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.benchmark.average_precision import picture_scores
from pipeline.datasets.picture_boxes import Found, People
from pipeline.datasets.shards import (
    LabelledFrame,
    LabelledSequence,
    ShardError,
    Shards,
    ShardWriter,
    encode_picture,
)
from pipeline.tracking.student_detections import encode, prepare, student_detections
from pipeline.training.still_score import ap50, score_stills
from tests import ROOT
from tests.tiny import tiny_tracker

CPU = torch.device("cpu")
EQUAL = 1e-6  # percent; both average the same 101 points


def random_pictures(seed: int, pictures: int = 40) -> list[tuple[People, Found]]:
    """Crowds with ignored boxes; detections near people, near ignored ones, and of nothing."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(pictures):
        count = random.integers(0, 9)
        xywh = np.concatenate(
            [random.uniform(0, 120, (count, 2)), random.uniform(8, 60, (count, 2))], 1
        )
        near = np.repeat(xywh, 2, axis=0) + random.normal(0, 5, (2 * count, 4))
        ghosts = random.uniform(5, 90, (random.integers(0, 5), 4))
        boxes = np.concatenate([near, ghosts])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], 2)
        made.append(
            (
                People(xywh, random.random(count) < 0.25),
                Found(boxes, random.random(len(boxes)).round(2 if seed % 2 else 9)),
            )
        )
    return made


@pytest.mark.parametrize("seed", range(12))
def test_the_figure_is_that_of_pycocotools(seed):
    """On every second seed scores are tied, too."""
    pictures = random_pictures(seed)
    theirs = picture_scores([(*pair, 1.0) for pair in pictures], 0.5).ap50
    assert 5 < theirs < 95
    assert ap50(pictures) == pytest.approx(theirs, abs=EQUAL)


def test_nobody_to_find_and_nothing_found():
    nobody = People(np.zeros((0, 4)), np.zeros(0, bool))
    somebody = People(np.array([[0.0, 0, 9, 9]]), np.array([False]))
    nothing = Found(np.zeros((0, 4)), np.zeros(0))
    assert np.isnan(ap50([(nobody, nothing)]))
    assert ap50([(somebody, nothing), (nobody, nothing)]) == 0
    assert ap50([(somebody, Found(somebody.xywh, np.array([0.1])))]) == 100


def pack(folder: Path, split: str = "val", stills: int = 5) -> Shards:
    """Stills of noise with two boxes each, one of them ignored in the last."""
    random = np.random.default_rng(0)
    writer = ShardWriter(folder, ["person"])
    for index in range(stills):
        pixels = random.integers(0, 256, (60 + 10 * index, 90, 3)).astype(np.uint8)
        frame = LabelledFrame(
            "a.webp", [[5, 5, 40, 40], [40, 20, 30, 40]], [0, 1], [0, 0], [False, index == 4]
        )
        still = LabelledSequence(f"s{index}", "here", split, 0.0, True, "seen", False, [frame])
        writer.add(still, {"a.webp": encode_picture(pixels, 90)[0]})
    writer.close()
    return Shards(folder)


def test_a_student_is_scored_on_the_val_stills_at_its_own_canvas(tmp_path):
    shards, tracker = pack(tmp_path), tiny_tracker(lively=True)
    tracker.train()
    figures = score_stills(tracker, shards, CPU)
    assert tracker.training and figures["pictures"] == 5 and figures["unreadable"] == 0
    tracker.eval()
    prepared = [prepare(shards.picture(i, 0), tracker.config) for i in range(5)]
    found = student_detections(encode(tracker, prepared), prepared)
    people = [
        People(np.array(s.frames[0].boxes, float), np.array(s.frames[0].ignore))
        for s in shards.sequences
    ]
    wanted = picture_scores([(p, f, 1.0) for p, f in zip(people, found, strict=True)], 0.5).ap50
    assert wanted > 0 and figures["ap50"] == pytest.approx(wanted, abs=0.01)
    assert score_stills(tracker, shards, CPU, limit=2)["pictures"] == 2


def test_a_picture_that_cannot_be_read_is_named_skipped_and_counted(tmp_path, monkeypatch, capsys):
    shards = pack(tmp_path)
    read = shards.encoded
    monkeypatch.setattr(shards, "encoded", lambda i, f: b"no picture" if i == 1 else read(i, f))
    figures = score_stills(tiny_tracker(), shards, CPU)
    assert (figures["pictures"], figures["unreadable"]) == (4, 1)
    assert "000001/a.webp: not a readable picture" in capsys.readouterr().err
    monkeypatch.setattr(shards, "encoded", lambda i, f: b"no picture")
    with pytest.raises(ShardError, match="no still of split val can be read"):
        score_stills(tiny_tracker(), shards, CPU)


def test_shards_without_a_val_half_are_refused(tmp_path):
    with pytest.raises(ShardError, match="no still of split val"):
        score_stills(tiny_tracker(), pack(tmp_path, "train"), CPU)


def test_it_needs_no_more_than_a_bare_gpu_machine_has():
    program = """
import sys
for name in ("pycocotools", "motmetrics", "trackeval", "pyarrow", "av", "ray", "pandas", "rich",
             "pydantic", "decord", "fsspec", "onnxruntime", "openvino"):
    sys.modules[name] = None
import pipeline.training.still_score
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
