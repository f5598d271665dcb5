"""Each export is read back by a reader that is not ours, or by the way back into training."""

import csv
import json
import tempfile
import tracemalloc
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import motmetrics
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from trackeval.datasets import Kitti2DBox

from jobs.compact import main as compact
from jobs.export import main
from pipeline.datasets.corrected import LabelNames, resolve
from pipeline.datasets.cvat_labels import read_cvat
from pipeline.datasets.labelstudio_labels import read_labelstudio
from pipeline.datasets.mot import read_results
from pipeline.exchange.config import TracksConfig
from pipeline.exchange.errors import ExportError
from pipeline.exchange.export import export_tracks
from pipeline.exchange.keyframes import thinned
from pipeline.exchange.names import sequence_name
from pipeline.exchange.source import VideoTracks, chosen_videos
from pipeline.storage.files import read_bytes
from tests.pipeline.exchange.tables import Video, videos, write_tables
from tests.pipeline.report.runs import Clip, write_run

quick = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
TWO = Video("a/gate.mp4", rows=((0, 1, (1.0, 2.0, 3.0, 4.0)), (9, 7, (5.0, 6.0, 7.0, 8.0))))


def exported(kind: str, wanted: list[Video], **given_settings) -> Path:
    """Export a run of these videos; its files are removed with the process's temporary folder."""
    folder = Path(tempfile.mkdtemp(dir=exported.root))
    run = write_tables(folder / "run", wanted)
    export_tracks(run, str(folder / "out"), TracksConfig(kind, **given_settings))
    return folder / "out"


@pytest.fixture(autouse=True)
def root(tmp_path):
    exported.root = tmp_path


def close(found: dict, expected: dict, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for place, box in expected.items():
        np.testing.assert_allclose(found[place], box, atol=tolerance, err_msg=str(place))


@quick
@given(st.lists(videos(), min_size=1, max_size=3))
def test_pycocotools_reads_what_is_exported(wanted):
    coco = COCO(exported("coco", wanted) / "coco.json")
    assert [v["name"] for v in coco.dataset["videos"]] == [v.name for v in wanted]
    instances = {}
    for number, video in enumerate(wanted, 1):
        images = [i for i in coco.loadImgs(coco.getImgIds()) if i["video_id"] == number]
        assert [i["frame_id"] for i in images] == list(video.index)
        assert all((i["width"], i["height"]) == video.size for i in images)
        found = {}
        for image in images:
            for one in coco.loadAnns(coco.getAnnIds(image["id"])):
                found[image["frame_id"], one["track_id"]] = one["bbox"]
                assert one["video_id"] == number and one["category_id"] == 1
                instances.setdefault(one["instance_id"], set()).add((number, one["track_id"]))
        close(found, video.boxes, 0.0051)
    assert len(coco.anns) == sum(len(v.boxes) for v in wanted)
    assert all(len(people) == 1 for people in instances.values())


@quick
@given(videos(), st.integers(1, 9))
def test_tracks_come_whole_however_few_rows_are_read_at_once(video, at_once):
    with tempfile.TemporaryDirectory() as folder:
        run = write_tables(Path(folder), [video])
        source = VideoTracks(run, next(chosen_videos(run)), "person")
        tracks = list(source.tracks(at_once))
        frames = list(source.by_frame())
    ids = [set(rows.track_id.tolist()) for rows in tracks]
    assert ids == [{i} for i in sorted({i for _, i in video.boxes})]
    assert sum(map(len, tracks)) == len(video.boxes)
    assert [index for index, _, _ in frames] == list(video.index)
    by_frame = [(index, i) for index, _, rows in frames for i in rows.track_id.tolist()]
    assert sorted(by_frame) == sorted(video.boxes)


@quick
@given(videos())
def test_motmetrics_reads_what_is_exported(video):
    video = Video(**{**vars(video), "name": "x.mp4"})
    out = exported("motchallenge", [video])
    if video.rows:
        table = motmetrics.io.loadtxt(out / "x.txt", fmt="mot15-2D")
        found = {(f - 1, i): row[:4] for (f, i), row in zip(table.index, table.values, strict=True)}
        moved = {place: [x - 1, y - 1, w, h] for place, (x, y, w, h) in video.boxes.items()}
        close(found, moved, 0.0051)  # it counts pixels from 0, as the benchmark does from 1
    assert len(read_results(out / "x.txt", max(video.frames, 1))) == len(video.rows)
    with zipfile.ZipFile(out / "motchallenge.zip") as archive:
        assert archive.read("x.txt") == (out / "x.txt").read_bytes()


@quick
@given(videos().filter(lambda v: v.frames))
def test_trackeval_reads_the_kitti_labels(video):
    video = Video(**{**vars(video), "name": "0001.mp4"})
    out = exported("kitti", [video])
    (out / "evaluate_tracking.seqmap.training").write_text(f"0001 empty 000000 {video.frames:06d}")
    (out / "theirs" / "data").mkdir(parents=True)
    (out / "theirs" / "data" / "0001.txt").write_bytes((out / "label_02/0001.txt").read_bytes())
    reader = Kitti2DBox(
        {"GT_FOLDER": str(out), "TRACKERS_FOLDER": str(out), "TRACKERS_TO_EVAL": ["theirs"],
         "CLASSES_TO_EVAL": ["pedestrian"], "PRINT_CONFIG": False}
    )  # fmt: skip
    raw = reader.get_raw_seq_data("theirs", "0001")
    found = {}
    for frame, (ids, corners) in enumerate(
        zip(raw["tracker_ids"], raw["tracker_dets"], strict=True)
    ):
        for track_id, (left, top, right, bottom) in zip(ids, corners, strict=True):
            found[frame, int(track_id)] = [left, top, right - left, bottom - top]
    close(found, video.boxes, 0.0101)


@quick
@given(videos())
def test_csv_has_the_rows_of_the_table(video):
    (file,) = exported("csv", [video]).glob("*.csv")
    with file.open(newline="") as text:
        rows = list(csv.DictReader(text))
    found = {
        (int(r["frame_index"]), int(r["track_id"])): [float(r[s]) for s in "xywh"] for r in rows
    }
    close(found, video.boxes, 1e-3)
    times = dict(zip(video.index, video.times, strict=True))
    assert all(float(r["time_s"]) == times[int(r["frame_index"])] for r in rows)


def way_back(labels, video: Video) -> dict:
    boxes = resolve(labels, video.frames, video.size, LabelNames())
    assert labels.repairs == []
    places = zip(boxes.frame.tolist(), boxes.track_id.tolist(), strict=True)
    tracked = set(video.index)
    # Between sampled frames the boxes are interpolated.
    return {p: b for p, b in zip(places, boxes.xywh, strict=True) if p[0] in tracked}


@quick
@given(videos(inside=True), st.sampled_from([0.0, 1.0, 5.0]))
def test_tracks_come_back_from_cvat(video, tolerance):
    (file,) = exported("cvat", [video], tolerance_px=tolerance).glob("*.xml")
    labels = read_cvat(str(file), file.read_bytes())
    assert labels.video == video.name
    # Corners keep the tolerance, so width and height keep twice of it.
    close(way_back(labels, video), video.boxes, 2 * tolerance + 0.011)


@quick
@given(videos(inside=True), st.sampled_from([0.0, 1.0, 5.0]))
def test_tracks_come_back_from_label_studio(video, tolerance):
    out = exported("labelstudio", [video], tolerance_px=tolerance)
    ElementTree.parse(out / "labeling_config.xml")
    (file,) = out.glob("*.json")
    (task,) = json.loads(file.read_bytes())
    task["annotations"] = task.pop("predictions")  # as if somebody had accepted them
    (labels,) = read_labelstudio(str(file), json.dumps([task]).encode())
    assert labels.video == video.name
    renamed = {int(r["id"].removeprefix("track-")): n
               for n, r in enumerate(task["annotations"][0]["result"], 1)}  # fmt: skip
    expected = {(f, renamed[i]): box for (f, i), box in video.boxes.items()}
    close(way_back(labels, video), expected, tolerance + 0.01)


@quick
@given(
    st.lists(st.tuples(st.integers(1, 4), *[st.floats(-500, 500)] * 4), min_size=1, max_size=90),
    st.floats(0, 20),
)
def test_keyframes_give_all_boxes_within_the_tolerance(steps, tolerance):
    frame = np.cumsum([step for step, *_ in steps])
    boxes = np.array([box for _, *box in steps])
    rows = thinned(frame, boxes, tolerance)
    assert rows[0] == 0 and rows[-1] == len(frame) - 1
    assert rows == sorted(set(rows))
    for side in range(4):
        shown = np.interp(frame, frame[rows], boxes[rows, side])
        assert np.abs(shown - boxes[:, side]).max() <= tolerance + 1e-5


def test_a_walk_in_a_straight_line_has_two_keyframes():
    frame = np.arange(1000)
    boxes = np.stack([2.0 * frame, frame * 0.5, 0.0 * frame + 20, 0.0 * frame + 60], axis=1)
    assert thinned(frame, boxes, 0.0) == [0, 999]
    assert len(thinned(frame, boxes + 0.4 * np.sin(frame)[:, None], 1.0)) < 10


def test_label_studio_gets_boxes_cut_at_the_edge():
    rows = (
        (0, 1, (-10.0, 5.0, 20.0, 30.0)), (1, 2, (400.0, 5.0, 20.0, 30.0)),
        (2, 3, (-20.0, 5.0, 20.00001, 30.0)),
    )  # fmt: skip
    (file,) = exported("labelstudio", [Video("x.mp4", rows=rows)]).glob("*.json")
    (region,) = json.loads(file.read_bytes())[0]["predictions"][0]["result"]
    (key,) = region["value"]["sequence"]  # the others are outside, or thinner than is written
    assert (key["x"], key["width"], key["frame"], key["enabled"]) == (0, 3.125, 1, False)


def test_a_compacted_run_gives_the_same_files(tmp_path):
    clips = [Clip("a.mp4", made=False), Clip("b.mp4", tracks=(), made=False)]
    run = str(write_run(tmp_path, clips))
    kinds = ("motchallenge", "coco", "cvat", "labelstudio", "kitti", "csv")
    for kind in kinds:
        export_tracks(run, str(tmp_path / "before" / kind), TracksConfig(kind))
    assert compact([f"output={run}", "keep_s=0"]) == 0
    for kind in kinds:
        export_tracks(run, str(tmp_path / "after" / kind), TracksConfig(kind))
    files = [p.relative_to(tmp_path / "before") for p in (tmp_path / "before").rglob("*.*")]
    files = [name for name in files if (tmp_path / "before" / name).is_file()]
    assert len(files) == 13
    for name in files:
        after = (tmp_path / "after" / name).read_bytes()
        assert after == (tmp_path / "before" / name).read_bytes()


def test_videos_are_chosen_by_name_and_pattern():
    def names(*wanted: str) -> list[str]:
        out = exported("csv", [TWO, Video("b/yard.mp4")], videos=wanted)
        return sorted(p.stem for p in out.glob("*.csv"))

    assert names() == ["v0", "v1"]
    assert names("gate.mp4") == names("a/*") == names("v0") == ["v0"]
    with pytest.raises(ExportError, match=r"'nothing\*' is none of its 2 finished videos"):
        names("gate.mp4", "nothing*")


def test_a_name_of_no_video_is_refused_before_the_first_file(tmp_path):
    run = write_tables(tmp_path / "run", [TWO, Video("b/yard.mp4")])
    with pytest.raises(ExportError, match="'none' is none of its 2 finished videos"):
        export_tracks(run, str(tmp_path / "out"), TracksConfig("csv", videos=("v0", "none")))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["format=onnx", "videos=[a.mp4]"], "videos: format=onnx writes the tracker, no tracks"),
        (["format=torch", "min_trust=0.5"], "min_trust: format=torch writes the tracker"),
        (["format=coco", "canvas=[64,128]"], "canvas: format=coco writes tracks, not the tracker"),
    ],
)
def test_settings_of_the_other_kind_of_format_are_refused(tmp_path, capsys, given, reason):
    with pytest.raises(SystemExit) as stopped:
        main([f"input={tmp_path}", f"output={tmp_path}/out", *given])
    assert stopped.value.code == 2
    assert reason in capsys.readouterr().err.replace("\n", " ")


def test_tracks_of_low_trust_are_left_out():
    sure = Video(**{**vars(TWO), "trust": {1: 0.2, 7: 0.9}})
    (file,) = exported("csv", [sure], min_trust=0.5).glob("*.csv")
    assert [line.split(",")[2] for line in file.read_text().splitlines()[1:]] == ["7"]
    with pytest.raises(ExportError, match=r"has no table track_summary of a/gate\.mp4"):
        exported("csv", [TWO], min_trust=0.5)
    blind = Video(**{**vars(TWO), "trust": {1: None, 7: None}})
    with pytest.raises(ExportError, match="its weights come with no model of it"):
        exported("csv", [blind], min_trust=0.5)


def test_two_videos_of_one_name_are_refused_by_formats_that_know_names_alone(tmp_path):
    twins = [Video("a/cam.mp4"), Video("b/cam.avi")]
    for kind in ("motchallenge", "kitti"):
        with pytest.raises(ExportError, match=r"two videos would both be cam.txt \(b/cam.avi"):
            exported(kind, twins)
    assert len(list(exported("cvat", twins).glob("*.xml"))) == 2
    # Of MOT17 each video stands for three files.
    with pytest.raises(ExportError, match=r"two videos would both be MOT17-02-DPM\.txt"):
        exported("motchallenge", [Video("MOT17-02-DPM.mp4"), Video("MOT17-02-SDP.mp4")])


def test_a_run_that_began_later_in_its_videos_is_not_numbered_wrongly(tmp_path):
    run = Path(write_tables(tmp_path / "run", [TWO]))
    (run / "run.json").write_text(json.dumps({"deciding": {"only.start_s": 60.0}}))
    with pytest.raises(ExportError, match=r"only.start_s=60, so its frames do not count"):
        export_tracks(str(run), str(tmp_path / "out"), TracksConfig("cvat"))
    assert export_tracks(str(run), str(tmp_path / "out"), TracksConfig("csv")) == 1


def test_the_command_says_what_it_wrote_and_what_is_wrong(tmp_path, capsys):
    run = write_tables(tmp_path / "run", [TWO])
    assert main([f"input={run}", f"output={tmp_path}/out", "format=cvat"]) == 0
    assert f"1 files in {tmp_path}/out" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main([f"input={tmp_path}/none", f"output={tmp_path}/out", "format=coco"])
    assert stopped.value.code == 1
    assert "no video is tracked; run vsdmot track into it first" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["coco", "cvat", "labelstudio", "motchallenge"])
def test_memory_does_not_grow_with_the_archive(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("pipeline.exchange.files._IN_MEMORY", 1000)
    rows = tuple((f, i, (i + f % 3, 2.0, 3.0, 4.0)) for f in range(10) for i in range(20))

    def peak(count: int) -> int:
        clips = [Video(f"{n}.mp4", rows=rows) for n in range(count)]
        run = write_tables(tmp_path / f"run-{count}", clips)
        tracemalloc.start()
        try:
            export_tracks(run, str(tmp_path / f"out-{count}"), TracksConfig(kind))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1)  # what is imported and kept on first use
    few, many = peak(2), peak(12)
    assert many < 1.5 * few


def test_exports_go_to_a_bucket_too(tmp_path):
    run = write_tables(tmp_path / "run", [TWO])
    for kind in ("coco", "motchallenge", "labelstudio"):
        export_tracks(run, f"memory://exports/{kind}", TracksConfig(kind))
    assert b"a/gate.mp4" in read_bytes("memory://exports/coco/coco.json")
    assert read_bytes("memory://exports/motchallenge/gate.txt").startswith(b"1,1,")


def test_an_export_that_fails_leaves_no_half_of_a_file(tmp_path):
    run = write_tables(tmp_path / "run", [TWO, Video("b/gate.mp4")])
    with pytest.raises(ExportError, match="two videos would both be"):
        export_tracks(run, str(tmp_path / "out"), TracksConfig("motchallenge"))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["gate.txt"]


def test_ids_are_counted_from_1_for_the_server_of_motchallenge():
    rows = ((0, 0, (1.0, 2.0, 3.0, 4.0)), (3, 4, (5.0, 6.0, 7.0, 8.0)))
    out = exported("motchallenge", [Video("MOT17-03/video.mp4", rows=rows)])
    assert sorted(p.name for p in out.glob("*.txt")) == [
        "MOT17-03-DPM.txt", "MOT17-03-FRCNN.txt", "MOT17-03-SDP.txt",
    ]  # fmt: skip
    assert (out / "MOT17-03-SDP.txt").read_text().startswith("1,1,1.00,2.00")


def test_a_sequence_is_called_by_its_folder_where_the_file_says_nothing():
    assert sequence_name("val/TUD-Campus/video.mp4") == "TUD-Campus"
    assert sequence_name("cams/gate.mp4") == "gate"
