"""The paired measure: pictures, drawing, figures by hand, and the command with tiny students."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.measure import main
from model.track.checkpoint import CheckpointMetadata, save_tracker
from pipeline.benchmark.degraded import detect
from pipeline.benchmark.degraded.bounds import with_clean
from pipeline.benchmark.degraded.pictures import (
    APART,
    POOR,
    SEQUENCES,
    STILLS,
    Picture,
    Shown,
    batches,
    show,
    shown_under,
    survey_sequence,
    survey_stills,
)
from pipeline.benchmark.degraded.rows import (
    DEGRADED,
    POWER,
    RESAMPLES,
    draw_pictures,
    score_rows,
)
from pipeline.benchmark.detection_measure import MEAN, POOLED
from pipeline.benchmark.weighted_precision import match
from pipeline.datasets.mot import MotError, read_sequence
from pipeline.datasets.picture_boxes import Found, People
from pipeline.datasets.still_images import StillsError, read_stills
from pipeline.degrade.conditions import Condition
from pipeline.degrade.kinds import degrade, sequence_seed
from pipeline.trackers.sequence_frames import SequenceFrames
from pipeline.tracking.student_detections import perceive, prepare
from tests.tiny import TINY, tiny_tracker
from tests.videos import write_video

POOLED_STILLS = (STILLS, POOLED)
PERSON = np.array([[10.0, 10, 20, 40]])
RIGHT = Found(PERSON, np.array([0.8]))
WRONG = Found(np.array([[60.0, 60, 9, 9]]), np.array([0.9]))


def picture(name, group=STILLS, source="album", camera=""):
    people = People(PERSON, np.zeros(1, bool))
    return Picture(group, source, camera, name, 0, people, Path(name), 96, 160, name)


def test_pictures_of_one_camera_are_drawn_together_and_sources_keep_their_numbers():
    shown = [picture(str(i)) for i in range(5)]
    shown += [picture(str(i), source="cctv", camera=str(i // 3)) for i in range(9)]
    drawn = draw_pictures(shown)
    assert drawn.shape == (RESAMPLES, 14) and (drawn[:, :5].sum(1) == 5).all()
    cameras = drawn[:, 5:].reshape(-1, 3, 3)
    assert (cameras == cameras[..., :1]).all() and (cameras[..., 0].sum(1) == 3).all()
    assert np.array_equal(drawn, draw_pictures(shown))
    assert abs(drawn.mean(0) - 1).max() < 0.15


def rows_of(found, conditions, pictures=None):
    """Rows by (name, group, source, kind, severity) of detections by (name, condition)."""
    pictures = pictures or [picture(str(i)) for i in range(len(next(iter(found.values()))))]
    matches = {
        (name, condition.name): match(
            [(p.people, f) for p, f in zip(shown_under(condition, pictures), seen, strict=True)]
        )
        for (name, condition), seen in found.items()
    }
    names = list(dict.fromkeys(name for name, _ in found))
    rows = score_rows(pictures, conditions, names, "a", matches)
    keys = ("name", "group", "source", "kind", "severity")
    return {tuple(row[key] for key in keys): row for row in rows}


def test_equal_students_do_not_differ_and_better_ones_do():
    clean = Condition()
    half = [RIGHT, WRONG] * 50
    found = rows_of({("a", clean): half, ("b", clean): half, ("c", clean): [RIGHT] * 100}, [clean])
    control, same, better = (found[n, STILLS, POOLED, "clean", 0] for n in "abc")
    assert control["difference"] is None and control["ap50"] < 50
    assert [same[k] for k in ("difference", "low", "high", "smallest")] == [0, 0, 0, 0]
    assert better["ap50"] == pytest.approx(100)
    assert better["difference"] == pytest.approx(100 - control["ap50"])
    assert 0 < better["low"] < better["difference"] < better["high"] < 100
    # The interval is about 3.92 standard errors wide.
    assert better["smallest"] == pytest.approx(
        (better["high"] - better["low"]) * 2.8 / 3.92, rel=0.1
    )
    assert found["c", STILLS, "album", "clean", 0]["low"] == better["low"] and POWER == 2.8


def test_means_are_over_kinds_and_paired_over_conditions():
    clean, noise, haze = Condition(), Condition("noise", 3), Condition("haze", 5)
    shown = (clean, noise, haze)
    half, all_right = [RIGHT, WRONG] * 10, [RIGHT] * 20
    found = rows_of(
        {("a", c): half for c in shown}
        | {("b", clean): half, ("b", noise): all_right, ("b", haze): half},
        shown,
    )
    low, gain = (found[n, STILLS, POOLED, "noise", 3]["ap50"] for n in "ab")
    assert found["b", STILLS, POOLED, DEGRADED, 3]["ap50"] == pytest.approx(gain)
    assert found["b", STILLS, POOLED, DEGRADED, 5]["difference"] == 0
    both = found["b", STILLS, POOLED, DEGRADED, 0]
    assert both["difference"] == pytest.approx((gain - low) / 2)
    # The condition without a difference adds no spread.
    once = found["b", STILLS, POOLED, "noise", 3]
    assert both["smallest"] == pytest.approx(once["smallest"] / 2)


def test_sequences_are_drawn_whole_and_poor_sources_have_a_mean():
    pictures = [picture(s, SEQUENCES, s) for s in ("run", "run", "walk", "jump")]
    pictures += [picture(str(i), POOR, "fog") for i in range(4)]
    nobody = People(np.zeros((0, 4)), np.zeros(0, bool))
    pictures.append(replace(picture("none", POOR, "empty"), people=nobody))
    clean, noise = Condition(), Condition("noise", 5)
    found = rows_of(
        {
            ("a", clean): [RIGHT, RIGHT, RIGHT, WRONG, RIGHT, WRONG, RIGHT, WRONG, WRONG],
            ("a", noise): [RIGHT, RIGHT, RIGHT, WRONG],
            ("b", clean): [RIGHT] * 8 + [WRONG],
            ("b", noise): [RIGHT] * 4,
        },
        (clean, noise),
        pictures,
    )
    mean = found["b", SEQUENCES, MEAN, "noise", 5]
    assert mean["difference"] == pytest.approx(100 / 3) and mean["ap50"] == pytest.approx(100)
    assert (mean["low"], mean["high"]) == (0, pytest.approx(100))
    assert found["b", SEQUENCES, "jump", DEGRADED, 0]["low"] is None  # one sequence has no spread
    fog, poor = (found["b", POOR, s, "clean", 0] for s in ("fog", MEAN))
    assert (
        fog["difference"] == poor["difference"] > 0
        and fog["high"] == poor["high"]
        and ("b", POOR, "fog", "noise", 5) not in found
    )
    assert found["b", POOR, "empty", "clean", 0]["ap50"] is None


def test_batches_have_one_canvas_and_lose_no_picture():
    grey = [np.full((1, 1, 3), i % 3, np.uint8) for i in range(17)]
    shots = [Shown(i, picture(str(i)), pixels, pixels) for i, pixels in enumerate(grey)]
    made = list(batches(shots, lambda p: int(p.name) % 3, 4))
    assert sorted(shot.place for batch in made for shot in batch) == list(range(17))
    assert all(len({shot.place % 3 for shot in batch}) == 1 for batch in made)
    assert [len(batch) for batch in made] == [4, 4, 4, 2, 2, 1]


@pytest.fixture
def places(tmp_path):
    """Arguments of the command: stills of three sources, two sequences and two students."""
    images, annotations = [], []
    (tmp_path / "stills" / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    sources = ["album"] * 3 + ["fog"] * 2 + ["robot"] * 2
    for index, source in enumerate(sources):
        name = f"{index}.png"
        split = "train" if source == "robot" else "val"
        images.append({"id": index, "file_name": name, "source": source, "split": split})
        sides = (60, 90) if index % 2 else (90, 60)
        pixels = random.integers(0, 256, (*sides, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "stills" / "images" / name)
        annotations.append({"image_id": index, "category_id": 1, "bbox": [5, 5, 40, 40]})
    # Of a source with stills of split val, those of split train are left out.
    images.append(images[3] | {"id": 9, "file_name": "9.png", "split": "train"})
    file = tmp_path / "stills" / "annotations.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations}))
    for name in ("walk", "night"):
        folder = tmp_path / "data" / name
        (folder / "gt").mkdir(parents=True)
        write_video(folder / "video.mp4", frames=5)
        (folder / "gt" / "gt.txt").write_text("1,1,10,10,20,20,1,1,1\n4,1,9,9,20,20,1,1,1\n")
        (folder / "seqinfo.ini").write_text(
            f"[Sequence]\nname={name}\nframeRate=25\nseqLength=5\nimWidth=160\nimHeight=96\n"
        )
    for name, seed in (("one", 0), ("two", 1)):
        tracker = tiny_tracker(seed, lively=True)
        save_tracker(tmp_path / f"{name}.safetensors", tracker, CheckpointMetadata(TINY))
    return {
        "what": "degraded",
        "data": tmp_path / "data",
        "stills": file,
        "weights": tmp_path / "one.safetensors",
        "output": tmp_path / "out",
        "apart": "[night]",
        "poor": "[fog, robot]",
        "kinds": "[noise, codec]",
        "severities": "[5]",
        "stride": 3,
    }


def command(places, **more):
    return main([f"{name}={value}" for name, value in (places | more).items()])


def result(places):
    read = json.loads((places["output"] / "degraded.json").read_text())
    assert read["rows"] == pq.read_table(places["output"] / "degraded.parquet").to_pylist()
    return read["rows"], read["provenance"]


def test_the_command_prints_and_writes_rows_of_all_gates(places, capsys):
    assert command(places, gates="[learned, off, random, oracle]") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "AP50 less that of student" in said and "power of 80 %" in said
    rows, record = result(places)
    assert record["pictures"] == {"stills": 3, "sequences": 2, "poor": 4, "apart": 2}
    assert record["control"] == "student" and not record["left_out"]
    found = {(r["name"], r["group"], r["source"], r["kind"], r["severity"]): r for r in rows}
    assert {r["name"] for r in rows} == {
        "student", "student:off", "student:random", "student:oracle"
    }  # fmt: skip
    for place in ((STILLS, POOLED), (STILLS, "album"), (SEQUENCES, MEAN), (SEQUENCES, "walk")):
        kinds = [key[3:] for key in found if key[:3] == ("student:off", *place)]
        assert kinds == [("clean", 0), ("noise", 5), ("codec", 5), (DEGRADED, 5), (DEGRADED, 0)]
    for place in ((POOR, MEAN), (POOR, "fog"), (POOR, "robot"), (APART, "night")):
        assert [key[3:] for key in found if key[:3] == ("student", *place)] == [("clean", 0)]
    assert found["student", POOR, "fog", "clean", 0]["pictures"] == 2
    # The oracle's quality of a clean picture is 1; another gate gives other detections.
    assert len({row["ap"] for key, row in found.items() if key[1:3] == (STILLS, POOLED)}) > 1


def test_parts_of_the_clean_picture_bound_what_a_teacher_can_give(places):
    assert command(places, clean="[semantics, stride32, maps]") == 0
    rows, _ = result(places)
    found = {(r["name"], r["kind"]): r for r in rows if (r["group"], r["source"]) == POOLED_STILLS}
    bounds = ("student:clean_semantics", "student:clean_stride32", "student:clean_maps")
    for name in bounds:  # of a clean picture nothing is replaced
        assert found[name, "clean"]["ap"] == found["student", "clean"]["ap"]
        assert found[name, "clean"]["difference"] == 0
    for condition, kinds in (("clean", 1), ("noise-5", 4)):
        files = sorted((places["output"] / "detections").glob(f"{condition}--*"))
        scores = {tuple(pq.read_table(file)["score"].to_pylist()) for file in files}
        assert len(files) == 4 and len(scores) == kinds


def test_with_the_clean_maps_and_semantics_a_percept_is_that_of_the_clean_picture():
    tracker = tiny_tracker(lively=True)
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (96, 160, 3)).astype(np.uint8) for _ in range(2)]
    mine, other = (perceive(tracker, [prepare(p, tracker.config)]) for p in pictures)
    mixed = with_clean(with_clean(mine, other, "semantics"), other, "maps")
    for got, want in zip(mixed.visual, other.visual, strict=True):
        assert got is want
    assert mixed.semantic_map is other.semantic_map and mixed.scene is other.scene
    assert mixed.quality is mine.quality
    one = with_clean(mine, other, "stride16")
    assert [m is o for m, o in zip(one.visual, other.visual, strict=True)] == [False, True, False]


def test_a_further_student_adds_what_is_missing(places, monkeypatch):
    asked = []
    detect_now = detect._detect

    def counted(output, shown, condition, series, *rest):
        asked.append((condition.name, [one.name for one in series]))
        return detect_now(output, shown, condition, series, *rest)

    monkeypatch.setattr(detect, "_detect", counted)
    assert command(places) == 0
    alone, _ = result(places)
    assert asked == [(c, ["student"]) for c in ("clean", "noise-5", "codec-5")]
    asked.clear()
    two = places["weights"].with_name("two.safetensors")
    assert command(places, students=f"[two@{two}]", control="two") == 0
    assert asked == [(c, ["two"]) for c in ("clean", "noise-5", "codec-5")]
    rows, _ = result(places)
    mine = [r for r in rows if r["name"] == "student"]
    scores = ("ap50", "ap", "pictures", "kind", "source")
    assert [[r[k] for k in scores] for r in mine] == [[r[k] for k in scores] for r in alone]
    assert mine[0]["difference"] is not None
    asked.clear()
    # The same weights by another name, without the other student.
    assert command(places, weights=two) == 0
    assert asked == []


def test_pixels_are_those_of_the_benchmark(places, tmp_path):
    left_out = {}
    stills = [still for still in read_stills(places["stills"]) if still.source == "album"]
    sequence = read_sequence(places["data"] / "walk")
    pictures = [
        *survey_stills(STILLS, stills, left_out),
        *survey_sequence(SEQUENCES, sequence, 3, left_out),
    ]
    assert not left_out and [p.index for p in pictures] == [0, 0, 0, 0, 3]
    for condition in (Condition("swing", 5), Condition("codec", 3)):
        shown = list(show(pictures, condition, str(tmp_path / "videos")))
        assert [shot.place for shot in shown] == list(range(5))
        clean = np.asarray(Image.open(stills[1].path))[None]
        seed = sequence_seed("1.png", condition.kind, condition.severity)
        expected = degrade(clean, condition.kind, condition.severity, seed)[0]
        np.testing.assert_array_equal(shown[1].pixels, expected)
        cache = str(tmp_path / "others")
        frames = SequenceFrames(sequence, condition, None, canvases=(), native=True, cache=cache)
        np.testing.assert_array_equal(shown[4].pixels, list(frames)[3].native)
        np.testing.assert_array_equal(shown[1].clean, clean[0])
        clean = SequenceFrames(sequence, Condition(), None, canvases=(), native=True, cache=cache)
        np.testing.assert_array_equal(shown[4].clean, list(clean)[3].native)


def test_the_clean_picture_may_be_of_an_earlier_frame(places, capsys):
    sequence = read_sequence(places["data"] / "walk")
    pictures = survey_sequence(SEQUENCES, sequence, 1, {})
    frames = [shot.clean for shot in show(pictures, Condition(), "")]
    noisy = list(show(pictures, Condition("noise", 5), "", clean_age=2))
    for shot, expected in zip(noisy, (0, 0, 0, 1, 2), strict=True):
        np.testing.assert_array_equal(shot.clean, frames[expected])

    with pytest.raises(SystemExit):
        command(places, clean="[maps]", clean_age=2)
    assert "a still has no frames before it; give stills=" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command(places, stills="", clean_age=2)
    assert "is the age of what clean= takes" in capsys.readouterr().err
    assert command(places, stills="", clean="[maps]", clean_age=2) == 0
    rows, _ = result(places)
    names = {row["name"] for row in rows}
    assert names == {"student", "student:clean_maps_2_before"}


def test_a_picture_that_vanishes_is_said(places):
    left_out = {}
    pictures = list(survey_stills(STILLS, read_stills(places["stills"])[:2], left_out))
    pictures += survey_sequence(SEQUENCES, read_sequence(places["data"] / "walk"), 3, left_out)
    assert len(pictures) == 4 and not left_out
    write_video(places["data"] / "walk" / "video.mp4", frames=3)
    shown = show(pictures[2:], Condition(), "")
    assert next(shown).place == 0
    with pytest.raises(MotError, match="frame 3 cannot be read any more"):
        next(shown)
    pictures[1].origin.unlink()
    with pytest.raises(StillsError, match=r"1\.png: cannot be read any more"):
        list(show(pictures, Condition(), ""))


def test_what_cannot_be_read_is_left_out(places, capsys):
    (places["stills"].parent / "images" / "1.png").write_bytes(b"no picture")
    (places["data"] / "walk" / "video.mp4").write_bytes(b"no video")
    assert command(places) == 1
    rows, record = result(places)
    assert {Path(name).name for name in record["left_out"]} == {"1.png", "walk"}
    assert record["pictures"] == {"stills": 2, "sequences": 0, "poor": 4, "apart": 2}
    assert SEQUENCES not in {row["group"] for row in rows}
    said = " ".join(capsys.readouterr().out.split())
    assert "1.png: not a readable picture" in said


def test_bad_input_is_said(places, capsys):
    def refused(**more):
        with pytest.raises(SystemExit) as leaving:
            command(places, **more)
        assert leaving.value.code == 1
        return " ".join(capsys.readouterr().err.split())

    assert "control=other: is not measured; known are student" in refused(control="other")
    assert "both empty" in refused(stills="", data="")
    assert "no such folder" in refused(data="/nowhere")
    weights = places["weights"]
    assert "is the name of weights" in refused(students=f"[student@{weights}]")
    assert "no picture could be read" in refused(data="", poor="[]", pictures=0)
