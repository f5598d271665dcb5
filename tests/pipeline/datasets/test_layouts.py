"""Data sets in their layouts, and what is left out of them, with file and line."""

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.layouts import read_data, read_kitti
from pipeline.datasets.mot import MotError

SEQINFO = "[Sequence]\nname={0}\nimDir=img1\nframeRate=25\nseqLength=2\nimWidth=64\nimHeight=48\n"
GT = {
    "MOT15": "1,1,4,6,7,8,1,-1,-1,-1\n2,1,4,6,7,8,1,-1,-1,-1\n",
    "MOT17": "1,1,4,6,7,8,1,1,1\n1,2,9,6,7,8,0,8,0.5\n2,1,4,6,7,8,1,1,1\n",
    "DanceTrack": "1,1,4,6,7,8,1,1,1\n2,1,4,6,7,8,1,1,1\n",
    "SportsMOT": "1, 1, 4, 6, 7, 8, 1, 1, 1\n2, 1, 4, 6, 7, 8, 1, 1, 1\n",
}
ROW = "0 1 Pedestrian 0 0 -1.5 10 20 30 44 1 1 1 0 0 0 0\n"


def mot(root, name, gt=GT["MOT17"]):
    folder = root / name
    (folder / "gt").mkdir(parents=True)
    (folder / "img1").mkdir()
    for number in (1, 2):
        Image.new("RGB", (64, 48)).save(folder / "img1" / f"{number:06d}.jpg")
    (folder / "seqinfo.ini").write_text(SEQINFO.format(name))
    if gt:
        (folder / "gt" / "gt.txt").write_text(gt)
    return folder


@pytest.mark.parametrize("layout", GT)
def test_the_layouts_of_motchallenge_read_alike(tmp_path, layout):
    mot(tmp_path / "train", "A", GT[layout])
    data = read_data(tmp_path)
    sequence = data.sequences["A"]
    assert not data.left_out
    assert sequence.video.name == "img1"
    assert sequence.gt.frame[-1] == 2
    assert sequence.gt.xywh[0].tolist() == [4, 6, 7, 8]


def test_of_the_copies_of_a_mot17_sequence_one_counts(tmp_path):
    for detector in ("DPM", "FRCNN", "SDP"):
        mot(tmp_path, f"MOT17-02-{detector}")
    data = read_data(tmp_path)
    assert list(data.sequences) == ["MOT17-02-FRCNN"]
    assert all("counted once" in reason for reason in data.left_out.values())


def test_a_bad_sequence_costs_itself_and_is_named(tmp_path):
    mot(tmp_path, "good")
    mot(tmp_path, "untold", gt="")
    mot(tmp_path, "outside", "1,1,4,6,7,8,1,1,1\n1,2,70,6,7,8,1,1,1\n")
    mot(tmp_path, "negative", "1,1,4,6,-7,8,1,1,1\n")
    mot(tmp_path, "twice", "2,1,4,6,7,8,1,1,1\n2,1,9,6,7,8,1,1,1\n")
    mot(tmp_path, "beyond", "1,1,4,6,7,8,1,1,1\n3,1,4,6,7,8,1,1,1\n")
    mot(tmp_path, "nobody", "1,1,4,6,7,8,0,1,1\n1,2,4,6,7,8,1,8,1\n")
    data = read_data(tmp_path)
    assert list(data.sequences) == ["good"]
    assert "has no ground truth; expected gt/gt.txt" in data.left_out["untold"]
    assert "line 2: expected a box inside the picture of 64x48" in data.left_out["outside"]
    assert "line 1: expected positive width and height" in data.left_out["negative"]
    assert "line 2: expected an id once in a frame" in data.left_out["twice"]
    assert "line 2: expected a frame up to 2 (seqLength)" in data.left_out["beyond"]
    nobody = tmp_path / "nobody" / "gt" / "gt.txt"
    assert data.left_out["nobody"] == f"{nobody}: holds no person to follow (class 1, flag 1)"
    with pytest.raises(MotError, match="no sequence called missing"):
        read_data(tmp_path, ["missing"])


def kitti(root, text):
    (root / "label_02").mkdir()
    pictures = root / "image_02" / "0017"
    pictures.mkdir(parents=True)
    for number in (0, 1):
        Image.new("RGB", (64, 48)).save(pictures / f"{number:06d}.png")
    (root / "label_02" / "0017.txt").write_text(text)
    return root / "label_02" / "0017.txt"


def test_kitti_counts_from_0_and_keeps_what_is_to_be_ignored(tmp_path):
    ignored = ROW.replace("0 1 Ped", "1 -1 Ped").replace("Pedestrian", "DontCare")
    kitti(tmp_path, ROW + ignored + ignored + ROW.replace("0 1 Pedestrian", "1 2 Car"))
    sequence = read_data(tmp_path).sequences["0017"]
    assert (sequence.length, sequence.width, sequence.height) == (2, 64, 48)
    assert sequence.gt.frame.tolist() == [1, 2, 2, 2]
    assert sequence.gt.class_id.tolist() == [1, 8, 8, 3]
    np.testing.assert_array_equal(sequence.gt.xywh[0], [10, 20, 20, 24])
    assert len(set(sequence.gt.track_id.tolist())) == 4


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("0 1 Pedestrian", "17 columns"),
        (ROW.replace("Pedestrian", "Dog"), "a type out of Pedestrian"),
        (ROW.replace("0 1 Ped", "7 1 Ped"), "a frame from 0 to 1"),
        (ROW.replace("10 20 30", "40 20 30"), "left < right"),
        (ROW.replace("10 20", "x 20"), "numbers for the box"),
        (ROW, "an id once in a frame"),
    ],
)
def test_a_malformed_kitti_row_is_told_with_file_and_line(tmp_path, row, expected):
    path = kitti(tmp_path, ROW + row)
    with pytest.raises(MotError, match=rf"0017\.txt, line 2: expected .*{expected}"):
        read_kitti(path)
