"""Corrected tracks become shards: right boxes on right pictures, and faults that are named."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jobs.pack import main
from pipeline.datasets.corrected import (
    CorrectedTrack,
    CorrectedVideo,
    Key,
    LabelNames,
    LabelsError,
    resolve,
)
from pipeline.datasets.cvat_labels import read_cvat
from pipeline.datasets.labelstudio_labels import read_labelstudio
from pipeline.datasets.pack_corrected import find_videos, pack_corrected, read_corrected
from pipeline.datasets.packing import KnownSources
from pipeline.datasets.shards import Shards, ShardWriter
from tests.videos import TURN_CLOCKWISE, cut, read_number, set_matrix, upright, write_video

SIZE, FRAMES = (160, 96), 12


def box(frame, left, top, right, bottom, outside=0, **more):
    given = {"frame": frame, "outside": outside, "xtl": left, "ytl": top, "xbr": right,
             "ybr": bottom, "keyframe": 1, **more}  # fmt: skip
    return "<box " + " ".join(f'{name}="{value}"' for name, value in given.items()) + "/>"


def track(number, *boxes, label="person"):
    return f'<track id="{number}" label="{label}">{"".join(boxes)}</track>'


def cvat(*tracks, source="gate.mp4", size=FRAMES, shape=SIZE, **more):
    fields = {"size": size, "start_frame": 0, "stop_frame": FRAMES - 1, "source": source, **more}
    meta = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
    wide, high = shape
    return (
        f"<annotations><meta><task>{meta}<original_size><width>{wide}</width><height>{high}"
        f"</height></original_size></task></meta>{''.join(tracks)}</annotations>"
    ).encode()


def region(name, *items, label="person", frames=FRAMES):
    keys = ("frame", "x", "y", "width", "height", "enabled")
    sequence = [dict(zip(keys, item, strict=True)) for item in items]
    value = {"framesCount": frames, "sequence": sequence, "labels": [label]}
    return {"id": name, "type": "videorectangle", "value": value}


def studio(*regions, video="/data/upload/3/1a2b3c4d-gate.mp4", **more):
    annotation = {"id": 1, "result": list(regions)}
    return json.dumps([{"id": 5, "data": {"video": video}, "annotations": [annotation], **more}])


def pack(tmp_path, *files, videos=None, more=()):
    paths = []
    for number, (kind, content) in enumerate(files):
        path = tmp_path / f"labels-{number}{kind}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        paths.append(str(path))
    words = [f"output={tmp_path}/shards", f"corrected={json.dumps(paths)}", *more]
    code = main([*words, f"videos={videos or tmp_path / 'videos'}"])
    assert code == 0
    return Shards(tmp_path / "shards")


@pytest.fixture
def gate(tmp_path):
    (tmp_path / "videos").mkdir()
    return write_video(tmp_path / "videos" / "gate.mp4", FRAMES, *SIZE)


def test_boxes_between_keyframes_are_interpolated_and_end_where_the_tool_ends_them(gate, tmp_path):
    walk = track(4, box(2, 10, 20, 30, 60), box(6, 18, 20, 38, 60), box(8, 18, 20, 38, 60, 1))
    stay = track(9, box(10, 100, 10, 120, 50))
    (one,) = pack(tmp_path, (".xml", cvat(walk, stay))).sequences
    assert [len(frame.boxes) for frame in one.frames] == [0, 0, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1]
    assert one.frames[4].boxes == [[14, 20, 20, 40]] and one.frames[4].ids == [4]
    assert one.frames[11].boxes == [[100, 10, 20, 40]]  # to the end, as in CVAT
    assert (one.name, one.split, one.fps, one.extent) == ("gate.mp4", "train", 25, "whole")


def test_label_studio_shows_a_keyframe_that_is_off_and_hides_what_follows(gate, tmp_path):
    seen = region("r1", (3, 10, 25, 20, 50, True), (5, 20, 25, 20, 50, False))
    again = region("r2", (7, 0, 0, 50, 50, True), (8, 0, 0, 50, 50, False))
    shards = pack(tmp_path, (".json", studio(seen, again)))
    frames = shards.sequences[0].frames
    assert [len(frame.boxes) for frame in frames] == [0, 0, 1, 1, 1, 0, 1, 1, 0, 0, 0, 0]
    assert frames[3].boxes == [[24, 24, 32, 48]] and frames[6].ids == [2]


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_numbers_and_places_are_those_of_the_decoded_upright_picture(tmp_path, turn):
    (tmp_path / "videos").mkdir()
    uneven = [0, 40, 45, 300, 310, 400, 900, 910, 1000, 1040, 1500, 2000]
    path = write_video(tmp_path / "videos" / "gate.mp4", FRAMES, *SIZE, milliseconds=uneven)
    set_matrix(path, TURN_CLOCKWISE[turn])
    shape = SIZE if turn % 180 == 0 else SIZE[::-1]
    right = shape[0]
    shards = pack(tmp_path, (".xml", cvat(track(1, box(0, 5, 5, right, 50)), shape=shape)))
    for number, frame in enumerate(shards.sequences[0].frames):
        picture = shards.picture(0, number)
        assert picture.shape[:2] == shape[::-1]
        assert read_number(upright(picture, -turn)) == number
        assert frame.boxes == [[5, 5, right - 5, 45]]


def test_a_job_of_cvat_labels_a_part_of_a_video_that_it_does_not_name(gate, tmp_path):
    # As CVAT writes it: without source and original_size.
    given = "<size>3</size><start_frame>4</start_frame><stop_frame>6</stop_frame>"
    content = (
        f"<annotations><meta><job>{given}</job></meta>{track(1, box(4, 5, 5, 20, 50))}"
        "</annotations>"
    )
    shards = pack(tmp_path, (".xml", content), videos=gate)
    assert [f.file[-11:] for f in shards.sequences[0].frames] == [
        "000004.webp", "000005.webp", "000006.webp",
    ]  # fmt: skip
    assert read_number(shards.picture(0, 0)) == 4
    with pytest.raises(LabelsError, match="does not name its video"):
        find_videos(read_corrected([str(tmp_path / "labels-0.xml")]), str(tmp_path / "videos"))


def test_a_task_that_ends_before_the_video_labels_its_own_frames(gate, tmp_path, capsys):
    part = cvat(track(1, box(0, 5, 5, 20, 50)), size=3, stop_frame=2)
    assert len(pack(tmp_path, (".xml", part)).sequences[0].frames) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "ends at frame 2 of a video of 12 frames; the frames after it are not packed" in said


def test_an_export_of_cvat_is_taken_as_it_is_downloaded(gate, tmp_path):
    with zipfile.ZipFile(tmp_path / "task.zip", "w") as archive:
        archive.writestr("annotations.xml", cvat(track(1, box(0, 5, 5, 20, 50))))
    words = [f"output={tmp_path}/shards", f"corrected=[{tmp_path}/task.zip]"]
    assert main([*words, f"videos={gate}"]) == 0
    assert len(Shards(tmp_path / "shards").sequences) == 1
    zipfile.ZipFile(tmp_path / "other.zip", "w").close()
    with pytest.raises(LabelsError, match=r"is no export of CVAT .*CVAT for video 1\.1"):
        read_corrected([str(tmp_path / "other.zip")])
    content = bytearray((tmp_path / "task.zip").read_bytes())
    content[6] |= 1  # marks the entry as encrypted, here and in the list at the end
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.zip").write_bytes(content)
    with pytest.raises(LabelsError, match=r"is no export of CVAT .*encrypted"):
        read_corrected([str(tmp_path / "locked.zip")])


def test_boxes_over_the_edge_are_cut_and_counted(gate, tmp_path, capsys):
    shards = pack(tmp_path, (".xml", cvat(track(1, box(0, -20, 5, 30, 200)))))
    assert shards.sequences[0].frames[3].boxes == [[0, 5, 30, 91]]
    said = " ".join(capsys.readouterr().out.split())
    assert "12 boxes reached outside of the picture and were cut at its edge" in said


def test_other_labels_are_refused_or_ignored(gate, tmp_path):
    other = track(2, box(0, 40, 5, 60, 50), label="poster &lt;b&gt;")
    file = (".xml", cvat(track(1, box(0, 5, 5, 20, 50)), other))
    with pytest.raises(SystemExit):
        pack(tmp_path, file)
    shards = pack(tmp_path, file, more=["ignored_labels=['poster <b>']"])
    assert shards.sequences[0].frames[0].ignore == [False, True]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b" \n", "is empty; export it again"),
        (b"<annotations><meta>", r"is not readable as XML \(no element found: line 1"),
        (b"<annotations><meta><project/></meta></annotations>", "not a whole project"),
        (cvat() + b"<x/>", r"is not readable as XML"),
        (cvat("<image/>"), "is in the format CVAT for images, which has no tracks"),
        (cvat(stop_frame="many"), "stop_frame is 'many'; a whole number is expected"),
        (cvat(track("x", box(0, 1, 1, 9, 9))), "a track has the id 'x'"),
        (cvat(track(3, box(4, 1, 1, 9, 9), box(4, 1, 1, 9, 9))), "track 3 has two boxes in frame"),
        (cvat(track(3, box(0, 9, 1, 1, 9))), r"in frame 0 the box 9, 1 to 1, 9; .*xtl < xbr"),
        (cvat(track(3, box(0, 1, 1, "nan", 9))), "track 3 has in frame 0 the box"),
        (cvat(track(3, '<box frame="0"/>')), "track 3 has a box that cannot be read"),
        (cvat(track(3, '<polygon frame="0"/>')), "track 3 is a polygon; people are boxes"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_of_cvat(tmp_path, content, reason):
    (tmp_path / "a.xml").write_bytes(content)
    with pytest.raises(LabelsError, match=reason) as error:
        read_corrected([str(tmp_path / "a.xml")])
    assert str(error.value).startswith(f"{tmp_path}/a.xml: ")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[{", "is not readable as JSON"),
        ('[{"video": "a.mp4"}]', "is no task with data; export in the format JSON, not JSON-MIN"),
        (studio(), None),
        (studio(annotations=[]), "no task has an annotation; press Submit"),
        (studio(annotations=[{"was_cancelled": True, "result": []}]), "no task has an annotation"),
        (studio(region("r", (1, 0, 0, 9, 9, True), (1, 0, 0, 9, 9, True))), "two boxes in frame 1"),
        (studio(region("r", (0, 0, 0, 9, 9, True))), "region r has in frame 0 the box"),
        (studio(region("r", (1, 0, 0, 0, 9, True))), "width and height above 0"),
        (studio({"id": 1, "type": "videorectangle"}), "task 5 is not as Label Studio writes it"),
        (studio(region("r", ("one", 0, 0, 9, 9, True))), "task 5 is not as Label Studio writes it"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_of_label_studio(tmp_path, content, reason):
    if reason is None:
        assert [v.tracks for v in read_labelstudio("x", content.encode())] == [[]]
        return
    with pytest.raises(LabelsError, match=reason):
        read_labelstudio("x", content.encode())


def test_the_newest_annotation_of_a_task_counts():
    old = {"id": 9, "updated_at": "2026-01-01", "result": [region("a", (1, 0, 0, 9, 9, True))]}
    new = {"id": 2, "updated_at": "2026-02-01", "result": []}
    (video,) = read_labelstudio("x", studio(annotations=[old, new]).encode())
    assert video.tracks == [] and video.repairs == [
        "2 annotations of one video; the newest is taken"
    ]


def tracked(*tracks, **more):
    given = {"file": "a.xml", "video": "v.mp4", "frames": FRAMES, "exact": True, "size": SIZE}
    return CorrectedVideo(tracks=tracks, **{**given, **more})


def at(frame, *corners, shown=True):
    return Key(frame, corners or (1.0, 1.0, 9.0, 9.0), shown, False)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (tracked(frames=FRAMES + 1), "is for a video of 13 frames, its video has 12"),
        (tracked(frames=20, exact=False), "is for a video of 20 frames"),
        (tracked(size=(96, 160)), "was made on pictures of 96x160 pixels, its video shows 160x96"),
        (tracked(CorrectedTrack("track 1", 1, "person", [at(0, 170.0, 1.0, 180.0, 9.0)])),
         r"track 1 has in frame 0 the box 170, 1 to 180, 9, outside of the picture of 160x96"),
        (tracked(CorrectedTrack("track 1", 1, "person", [at(3)]),
                 CorrectedTrack("track 1", 1, "person", [at(3)])),
         "track 1 has two boxes in frame 3"),
        (tracked(CorrectedTrack("track 1", 1, "dog", [at(3)])),
         "track 1 has the label 'dog'; people are person"),
    ],
)  # fmt: skip
def test_labels_that_do_not_fit_their_video(labels, reason):
    with pytest.raises(LabelsError, match=reason):
        resolve(labels, FRAMES, SIZE, LabelNames())


def test_repairs_are_recorded():
    key = CorrectedTrack("region r", 1, "person", [at(0), at(50)])
    labels = tracked(key, frames=FRAMES + 1, exact=False)
    assert len(resolve(labels, FRAMES, SIZE, LabelNames()).frame) == 1
    assert labels.repairs == [
        "says that the video has 13 frames; it has 12, which is taken",
        "1 boxes after the last frame were left out",
    ]
    turned = read_cvat("x", cvat(track(1, box(0, 10, 10, 30, 20, rotation=90))))
    np.testing.assert_allclose(turned.tracks[0].keys[0].corners, (15, 5, 25, 25))
    assert turned.repairs == ["track 1, frame 0: a turned box became the one around it"]


def test_videos_are_found_by_path_then_by_name(gate, tmp_path):
    root = tmp_path / "videos"
    for name in ("a/cam.mp4", "b/cam.mp4", "b/<b>&'.mp4"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(gate.read_bytes())

    def found(video):
        return find_videos([tracked(video=video)], str(root))[0].relative_path

    old = read_cvat("x", b"<annotations><meta><task/><source>a.mp4</source></meta></annotations>")
    assert old.video == "a.mp4"
    assert found("b/cam.mp4") == "b/cam.mp4"
    assert found("uploads/<b>&'.mp4") == "b/<b>&'.mp4"
    with pytest.raises(LabelsError, match=r"a\.xml: 2 videos in .* are called cam\.mp4: a/cam"):
        found("cam.mp4")
    with pytest.raises(LabelsError, match=r"its video gone\.mp4 is not among the 4 videos in"):
        found("gone.mp4")
    with pytest.raises(LabelsError, match="corrected= needs videos="):
        find_videos([tracked()], "")
    assert find_videos([tracked(video="renamed.mp4")], str(gate))[0].uri == str(gate)
    alone = tmp_path / "mp4" / "cam.mp4"
    alone.parent.mkdir()
    alone.write_bytes(gate.read_bytes())
    with pytest.raises(LabelsError, match=r"its video gone\.mp4 is not among the 1 videos in"):
        find_videos([tracked(video="gone.mp4")], str(alone.parent))


def test_a_long_video_becomes_several_sequences_with_the_same_ids(gate, tmp_path):
    labels = read_cvat("x", cvat(track(7, box(0, 5, 5, 20, 50))))
    writer = ShardWriter(tmp_path / "shards", ["person"], limit=4000)
    (info,) = find_videos([labels], str(gate))
    said = pack_corrected(
        labels, info, writer, 640, KnownSources(), LabelNames(), lambda number: None
    )
    writer.close()
    parts = Shards(tmp_path / "shards").sequences
    assert said == [] and len(parts) > 1
    assert [len(part.frames) for part in parts] and sum(len(p.frames) for p in parts) == FRAMES
    assert {i for part in parts for frame in part.frames for i in frame.ids} == {7}
    assert parts[1].name == "gate.mp4 part 2" and parts[1].source == "gate.mp4"


def test_a_video_that_breaks_off_is_not_given_wrong_labels(gate, tmp_path):
    whole = cvat(track(1, box(0, 5, 5, 20, 50)), size=60, stop_frame=59)
    path = write_video(Path(tmp_path / "videos" / "gate.mkv"), 60, *SIZE, codec="mpeg4")
    cut(path, 0.6)
    labels = read_cvat("x", whole)
    writer = ShardWriter(tmp_path / "shards", ["person"])
    (info,) = find_videos([labels], str(path))
    with pytest.raises(LabelsError, match="so boxes would go to wrong pictures"):
        pack_corrected(labels, info, writer, 640, KnownSources(), LabelNames(), lambda number: None)
