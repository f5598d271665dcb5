"""The yardstick for detection: figures by hand, and the command on pictures and a sequence."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jobs import measure_detection
from jobs.measure import main
from model.track.checkpoint import CheckpointMetadata, save_tracker
from pipeline.benchmark.average_precision import picture_scores
from pipeline.benchmark.detection_measure import (
    APART,
    DENSE,
    DETECTIONS,
    FOREIGN,
    MEAN,
    POOLED,
    SEQUENCES,
    Detections,
    detection_rows,
)
from pipeline.datasets.picture_boxes import Found, People
from pipeline.datasets.still_images import Still, StillsError, read_stills, spread
from pipeline.tracking.student_detections import dense_detections, prepare, student_detections
from tests.tiny import TINY, tiny_tracker
from tests.videos import write_video


def people(*boxes, ignored=()):
    xywh = np.array(boxes, float).reshape(-1, 4)
    return People(xywh, np.isin(np.arange(len(xywh)), ignored))


def found(*rows):
    table = np.array(rows, float).reshape(-1, 5)
    return Found(table[:, :4], table[:, 4])


NOTHING, NOBODY = found(), people()
PERSON = (10, 10, 20, 40)


def test_figures_by_hand():
    """A wrong detection comes first, then a right one; one of two people is never found."""
    seen = found((60, 60, 9, 9, 0.9), (*PERSON, 0.8), (10, 11, 20, 40, 0.3))
    scores = picture_scores([(people(PERSON, (80, 10, 20, 40)), seen, 1.0)], 0.5)
    assert scores.people == 2 and scores.ap50 == pytest.approx(100 * 0.5 * 51 / 101)
    assert (scores.recall, scores.precision) == (50, 50)
    assert scores.ap == pytest.approx(scores.ap50)  # the right one is exact
    assert scores.overlap == pytest.approx(100)


def test_overlap_is_the_median_of_people_found_at_the_score():
    """Boxes that are too large by a tenth, by three tenths, and by half, which has a low score."""
    truth = people(*((x, 0, 10, 20) for x in (0, 30, 60)), (90, 0, 10, 20), ignored=[3])
    seen = found(
        (0, 0, 11, 20, 0.9), (30, 0, 13, 20, 0.8), (60, 0, 15, 20, 0.4), (90, 0, 10, 20, 0.9)
    )
    middle = (100 / 1.1 + 100 / 1.3) / 2
    assert picture_scores([(truth, seen, 1.0)], 0.5).overlap == pytest.approx(middle)
    assert picture_scores([(truth, seen, 1.0)], 0.1).overlap == pytest.approx(100 / 1.3)


def test_ignored_boxes_count_neither_way_and_empty_pictures_do():
    seen = found((*PERSON, 0.8), (60, 60, 5, 5, 0.9))
    truth = people(PERSON, (55, 55, 30, 30), ignored=[1])
    assert picture_scores([(truth, seen, 1.0)], 0.5).ap50 == pytest.approx(100)
    # Found where nobody is, and more surely so.
    false = (NOBODY, found((0, 0, 9, 9, 0.95)), 1.0)
    both = picture_scores([(truth, seen, 1.0), false], 0.5)
    assert both.ap50 == pytest.approx(50) and both.precision == 50
    alone = picture_scores([false], 0.5)
    assert alone.people == 0 and np.isnan(alone.ap50) and alone.precision == 0
    missed = picture_scores([(truth, NOTHING, 1.0)], 0.5)
    assert missed.ap50 == missed.recall == 0
    assert np.isnan(missed.precision) and np.isnan(missed.overlap)


def test_sizes_are_heights_on_the_canvas():
    """The same two people, on a canvas half and twice as large as the picture."""
    truth, seen = people(PERSON, (50, 0, 20, 60)), found((*PERSON, 0.8))
    half, twice = (picture_scores([(truth, seen, scale)], 0.5) for scale in (0.5, 2.0))
    assert (half.people_small, half.people_medium, half.people_large) == (2, 0, 0)
    assert (twice.people_small, twice.people_medium, twice.people_large) == (0, 1, 1)
    assert twice.ap50_medium == pytest.approx(100) and twice.ap50_large == 0
    assert np.isnan(twice.ap50_small)
    edges = people((0, 0, 5, 32), (20, 0, 5, 96), (40, 0, 5, 31.9), (60, 0, 5, 96.1))
    counted = picture_scores([(edges, NOTHING, 1.0)], 0.5)
    assert (counted.people_small, counted.people_medium, counted.people_large) == (1, 2, 1)


def test_rows_are_by_source_with_means_over_cameras_and_clear_sequences():
    right, wrong = found((*PERSON, 0.8)), found((60, 60, 9, 9, 0.9))
    seen = {
        ("val", "cctv", "one"): right,
        ("val", "cctv", "two"): wrong,
        ("val", "cctv", "two "): wrong,
        ("val", "album", ""): right,
        ("train", "album", ""): right,
        (SEQUENCES, "walk", ""): right,
        (SEQUENCES, "run", ""): wrong,
        (APART, "night", ""): wrong,
    }
    detections = Detections(
        [(split, source, camera.strip()) for split, source, camera in seen],
        [people(PERSON)] * len(seen),
        [1.0] * len(seen),
        {("student", DETECTIONS): list(seen.values())},
    )
    rows = {(r["split"], r["source"]): r for r in detection_rows(detections, {"student": 0.5})}
    assert list(rows) == [
        ("val", "album"), ("val", "cctv"), ("val", POOLED), ("val", f"{MEAN} of 2 cctv cameras"),
        ("train", "album"), ("train", POOLED),
        (SEQUENCES, "run"), (SEQUENCES, "walk"), (SEQUENCES, MEAN), (APART, "night"),
    ]  # fmt: skip
    cameras = rows["val", f"{MEAN} of 2 cctv cameras"]
    assert cameras["ap50"] == pytest.approx(50) and cameras["pictures"] == cameras["people"] == 3
    assert rows["val", "cctv"]["ap50"] < 12 and rows["val", POOLED]["recall"] == 50
    assert rows[SEQUENCES, MEAN]["ap50"] == pytest.approx(50)
    assert rows[SEQUENCES, MEAN]["ap50_large"] is None


def test_detections_come_back_into_the_picture():
    """A picture of twice the canvas, padded below: the way back is a scaling and a cut."""
    config = replace(TINY, input_height=64, input_width=96)
    picture = prepare(np.zeros((96, 192, 3), np.uint8), config)
    assert picture.valid == [48, 96] and picture.image.shape == (3, 64, 96)
    boxes = torch.tensor([[0.5, 0.25, 0.25, 0.25], [0.5, 0.9, 0.1, 0.1], [0.5, 0.6, 0.5, 0.5]])
    dense = SimpleNamespace(
        logits=torch.tensor([2.0, 1.0, 0.0, 3.0]).view(1, 4, 1),
        boxes=torch.tensor([[10, 10, 30, 40], [11, 10, 31, 40], [50, 10, 70, 40], [0, 0, 9, 9.0]])[
            None
        ],
        valid=torch.tensor([[True, True, True, False]]),
    )
    memory = SimpleNamespace(
        people=SimpleNamespace(
            logits=torch.tensor([2.0, 1.0, 0.0]).view(1, 1, 3, 1), boxes=boxes[None, None].flip(2)
        ),
        seen=boxes[None],
        dense=dense,
    )
    (decoded,) = student_detections(memory, [picture])
    # The second lies on the padding alone, the third in part.
    np.testing.assert_allclose(decoded.xywh, [[72, 16, 48, 32], [48, 44.8, 96, 51.2]], atol=1e-4)
    np.testing.assert_allclose(decoded.scores, [0.8808, 0.5], atol=1e-4)
    (standing,) = student_detections(memory, [picture], [True])
    np.testing.assert_allclose(standing.xywh, decoded.xywh[::-1], atol=1e-4)
    np.testing.assert_allclose(standing.scores, [0.8808, 0.5], atol=1e-4)
    (alone,) = dense_detections(memory, [picture])
    np.testing.assert_allclose(alone.xywh, [[20, 20, 40, 60], [100, 20, 40, 60]])


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 80))
def test_stills_are_spread_evenly_by_source(sizes, count):
    stills = [
        Still(f"{source}/{i}", str(source), "train", "", None, None)
        for source, size in enumerate(sizes)
        for i in range(size)
    ]
    taken = spread(stills, count)
    assert len(taken) == min(count, len(stills)) == len({still.path for still in taken})
    shares = [sum(still.source == str(s) for still in taken) for s in range(len(sizes))]
    most = max(shares)
    # Who has fewer than others has none left, but for a remainder of one.
    assert all(
        share == size or share >= most - 1 for share, size in zip(shares, sizes, strict=True)
    )
    assert taken == spread(stills, count)


@pytest.fixture
def stills(tmp_path):
    """A COCO file: val of two cameras, a negative, a damaged file; train of one source."""
    folder = tmp_path / "stills"
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    random = np.random.default_rng(0)
    for index in range(6):
        name = f"{index}.png"
        image = {"id": index, "file_name": name, "source": "cctv", "split": "val"}
        if index in (0, 1):
            image["camera"] = f"c{index}"
        if index > 3:
            image |= {"source": "album", "split": "train"}
        images.append(image)
        pixels = random.integers(0, 256, (60, 90, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
        if index != 2:
            annotations.append({"image_id": index, "category_id": 1, "bbox": [5, 5, 40, 40]})
            annotations.append({"image_id": index, "category_id": 3, "bbox": [0, 0, 9, 9]})
            annotations.append(
                {"image_id": index, "category_id": 1, "bbox": [50, 5, 20, 40], "ignore": 1}
            )
    (folder / "images" / "3.png").write_bytes(b"no picture")
    file = folder / "annotations.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations}))
    return file


def test_a_coco_file_is_read(stills):
    first, _, negative, *_ = read_stills(stills)
    assert (first.source, first.split, first.camera) == ("cctv", "val", "c0")
    assert first.xywh.tolist() == [[5, 5, 40, 40], [50, 5, 20, 40]]
    assert first.ignored.tolist() == [False, True] and negative.xywh.shape == (0, 4)
    stills.write_text('{"images": [{"id": 1, "file_name": "a.png"}], "annotations": []}')
    (bare,) = read_stills(stills)
    assert (bare.source, bare.split, bare.camera) == ("stills", "train", "")
    for text in ("{", "[]", '{"images": []}', '{"images": [1], "annotations": []}'):
        stills.write_text(text)
        with pytest.raises(StillsError, match="is no COCO file"):
            read_stills(stills)


@pytest.fixture
def places(tmp_path, stills, monkeypatch):
    """Arguments of the command, with a detector that finds every left person."""
    for name in ("walk", "night"):
        folder = tmp_path / "data" / name
        (folder / "gt").mkdir(parents=True)
        write_video(folder / "video.mp4", frames=10)
        (folder / "gt" / "gt.txt").write_text("1,1,10,10,20,20,1,1,1\n5,1,9,9,20,20,1,8,1\n")
        (folder / "seqinfo.ini").write_text(
            f"[Sequence]\nname={name}\nframeRate=25\nseqLength=10\nimWidth=160\nimHeight=96\n"
        )
    weights = tmp_path / "tiny.safetensors"
    metadata = CheckpointMetadata(TINY, training={"frames": 57800})
    save_tracker(weights, tiny_tracker(lively=True), metadata)
    save_tracker(tmp_path / "raw.safetensors", tiny_tracker(), CheckpointMetadata(TINY))
    (tmp_path / "left.onnx").write_bytes(b"left")
    boxes, scores = np.array([[5.0, 5, 40, 40], [50, 5, 20, 40]]), np.array([0.9, 0.04])
    monkeypatch.setattr(
        measure_detection, "open_detector", lambda _: lambda pixels: (boxes, scores)
    )
    return {
        "what": "detection",
        "data": tmp_path / "data",
        "stills": stills,
        "weights": weights,
        "students": f"[raw@{tmp_path / 'raw.safetensors'}]",
        "detectors": f"[left@{tmp_path / 'left.onnx'}]",
        "output": tmp_path / "out",
        "apart": "[night]",
    }


def command(places, **more):
    return main([f"{name}={value}" for name, value in (places | more).items()])


def test_the_command_prints_writes_and_names_what_it_left_out(places, tmp_path, capsys):
    assert command(places) == 1  # one picture is damaged
    said = " ".join(capsys.readouterr().out.split())
    assert "57,800" in said and "3.png: not a readable picture" in said and "1 left out" in said
    assert "pictures: 12, students: 2, detectors: 1; on one idle CPU thread about 1 min" in said
    rows = pq.read_table(tmp_path / "out" / "detection.parquet").to_pylist()
    record = json.loads((tmp_path / "out" / "detection.json").read_text())
    assert record["rows"] == rows
    assert set(record["provenance"]["weights_sha256"]) == {"student", "raw"}
    table = {(r["name"], r["part"], r["split"], r["source"]): r for r in rows}
    left = table["left", FOREIGN, "val", "cctv"]
    assert (left["people"], left["pictures"], left["recall"]) == (2, 3, 100)
    assert left["precision"] == pytest.approx(200 / 3)  # found in the picture of nobody, too
    assert table["left", FOREIGN, "train", POOLED]["ap50"] == pytest.approx(100)
    # Frames 1, 5 and 9, of which the first has one person and the second a distractor.
    walk = table["student", DETECTIONS, SEQUENCES, "walk"]
    assert (walk["pictures"], walk["people"], walk["frames_trained"]) == (3, 1, 57800)
    assert table["raw", DENSE, APART, "night"]["frames_trained"] is None
    assert ("raw", DENSE, "val", f"{MEAN} of 2 cctv cameras") in table


def test_stills_alone_and_sequences_alone(places, tmp_path, capsys):
    assert command(places, data="", pictures=1, detectors="[]", students="[]") == 1
    rows = json.loads((tmp_path / "out" / "detection.json").read_text())["rows"]
    assert {r["split"]: r["pictures"] for r in rows if r["source"] == POOLED} == {
        "val": 3, "train": 1,
    }  # fmt: skip
    assert command(places, stills="", detectors="[]", students="[]") == 0
    rows = json.loads((tmp_path / "out" / "detection.json").read_text())["rows"]
    assert {r["split"] for r in rows} == {SEQUENCES, APART}


def test_students_may_be_measured_on_another_canvas(places, tmp_path, capsys):
    """The canvas that is recorded is the one of the students themselves."""
    for more, canvas in (({}, [64, 96]), ({"canvas": "[128,192]"}, [128, 192])):
        assert command(places, stills="", detectors="[]", students="[]", **more) == 0
        record = json.loads((tmp_path / "out" / "detection.json").read_text())
        assert record["provenance"]["canvas"] == canvas
    with pytest.raises(SystemExit) as leaving:
        command(places, canvas="[100,192]")
    assert leaving.value.code == 2
    assert "multiple of 32" in capsys.readouterr().err


def test_bad_input_is_said(places, tmp_path, stills, capsys):
    def refused(**more):
        with pytest.raises(SystemExit) as leaving:
            command(places, **more)
        assert leaving.value.code == 1
        return " ".join(capsys.readouterr().err.split())

    none = tmp_path / "none.json"
    assert f"stills={none}: cannot be read (No such file" in refused(stills=none)
    assert "both empty" in refused(stills="", data="")
    assert "no such folder" in refused(data=none)
    assert "expected NAME@PATH" in refused(students="[raw]")
    assert "is the name of weights" in refused(students=f"[student@{places['weights']}]")
    assert "is the name of a student" in refused(detectors=f"[raw@{tmp_path / 'left.onnx'}]")
    assert "no such weights file" in refused(students=f"[a@{none}]")
    assert "no such folder" in refused(what="quality", data="")
    (stills.parent / "images").rename(stills.parent / "elsewhere")
    assert "no picture could be read" in refused(data="", students="[]")
    stills.write_text(stills.read_text().replace('"val"', '"train"'))
    assert "has no stills of split val" in refused()
