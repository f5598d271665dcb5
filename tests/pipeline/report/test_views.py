"""Pictures for labelling: clear ones, spread over time, and a list that says what they show."""

import csv
import io

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jobs.crops import main as crops_job
from pipeline.report.overlays.rows import OverlayRows
from pipeline.report.overlays.views import clear_views
from tests.pipeline.report.runs import HEIGHT, WIDTH, Clip, write_run
from tests.videos import picture


@pytest.fixture
def run(tmp_path):
    clips = [
        Clip("a.mp4", tracks=((0, 50), (10, 12)), trust=(0.9, 0.2)),
        Clip("cams/b.avi", codec="mpeg4"),
        Clip("gone.mp4", made=False),
    ]
    return write_run(tmp_path, clips)


def lines_of(folder):
    with (folder / "crops.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_pictures_show_their_boxes_and_are_listed(run, tmp_path, capsys):
    folder = tmp_path / "crops"
    assert crops_job([str(w) for w in (f"output={run}", f"crops={folder}", "each=4")]) == 1
    said = capsys.readouterr()
    assert "no pictures of gone.mp4" in said.out and "is not where it was tracked" in said.out
    lines = lines_of(folder)
    counts = {(line["video"], line["track_id"]) for line in lines}
    assert counts == {("a.mp4", "1"), ("a.mp4", "2"), ("cams/b.avi", "1"), ("cams/b.avi", "2")}
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*.jpg")} == {
        line["file"] for line in lines
    }
    first = [line for line in lines if (line["video"], line["track_id"]) == ("a.mp4", "1")]
    assert len(first) == 4
    assert [int(line["frame_index"]) // 13 for line in first] == [0, 1, 2, 3]  # spread
    assert {line["trust"] for line in first} == {"0.9"}
    for line in first:
        frame = int(line["frame_index"])
        x, y, w, h = (float(line[side]) for side in "xywh")
        shown = np.asarray(Image.open(folder / line["file"])).astype(int)
        # The box and a tenth of it around, within the picture.
        left, top = max(0, int(x - 0.1 * w)), max(0, int(y - 0.1 * h))
        expected = picture(frame, WIDTH, HEIGHT)[top : top + len(shown), left:][:, : shown.shape[1]]
        assert shown.shape == (round(y + 1.1 * h) - top, round(x + 1.1 * w) - left, 3)
        assert np.abs(shown - expected).mean() < 8


def test_some_tracks_of_one_video_into_a_bucket(run):
    words = [f"output={run}", "crops=memory://crops", "videos=[a.mp4]", "tracks=[2]", "format=png"]
    assert crops_job([*words, "each=1"]) == 0
    system = fsspec.filesystem("memory")
    lines = list(csv.DictReader(io.StringIO(system.cat_file("/crops/crops.csv").decode())))
    assert [(line["track_id"], line["trust"]) for line in lines] == [("2", "0.2")]
    assert system.cat_file(f"/crops/{lines[0]['file']}").startswith(b"\x89PNG")
    assert crops_job([*words, "min_trust=0.5"]) == 0
    assert system.cat_file("/crops/crops.csv").decode().count("\n") == 1
    system.rm("/crops", recursive=True)


def test_bad_requests_are_named(run, tmp_path, capsys):
    for words, said in (
        (["tracks=[1]"], "name it with 'videos="),
        (["videos=[a.mp4]", "tracks=[7]"], "7 is not in this video; it has 1, 2"),
    ):
        with pytest.raises(SystemExit) as left:
            crops_job([f"output={run}", f"crops={tmp_path / 'crops'}", *words])
        assert left.value.code == 2 and said in capsys.readouterr().err
    with pytest.raises(SystemExit) as left:
        crops_job([f"output={run}", f"crops={tmp_path / 'crops'}", "videos=[nobody]"])
    assert left.value.code == 1 and "none of the 3 videos" in capsys.readouterr().err


@given(st.lists(st.sets(st.integers(0, 29), min_size=1), min_size=1, max_size=4), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_each_part_of_a_track_gives_its_clearest_box(seen, each):
    pairs = [(n, at) for n, frames in enumerate(seen, 1) for at in sorted(frames)]
    ids, frame = (np.array(column) for column in zip(*pairs, strict=True))
    side = 10.0 + (7 * frame) % 11
    boxes = np.stack([300.0 * ids, 0 * side, side, side], axis=1).astype(np.float32)
    rows = OverlayRows(
        np.arange(30), np.arange(30) / 25, np.full(30, 0.5, np.float32), np.ones(30, bool),
        np.zeros(30, bool), frame, ids, boxes, np.full(len(ids), 0.5, np.float32),
    )  # fmt: skip
    chosen = clear_views(rows, range(1, len(seen) + 1), each)
    assert len(set(chosen.tolist())) == len(chosen)
    for n, frames in enumerate(seen, 1):
        mine = sorted(frame[chosen[ids[chosen] == n]].tolist())
        assert 1 <= len(mine) <= min(each, len(frames)) and set(mine) <= frames
        largest = max(frames, key=lambda at: (7 * at) % 11)
        assert (7 * largest) % 11 in {(7 * at) % 11 for at in mine}
