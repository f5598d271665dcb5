"""MOTChallenge files: read whole, refused precisely, written so that they read back."""

import numpy as np
import pytest

from pipeline.datasets.mot import (
    Boxes,
    MotError,
    find_sequences,
    read_detections,
    read_gt,
    read_results,
    read_sequence,
    write_results,
)

SEQINFO = "[Sequence]\nname=A\nimDir=img1\nframeRate=25\nseqLength=3\nimWidth=64\nimHeight=48\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "A" / "gt").mkdir(parents=True)
    (tmp_path / "A" / "gt" / "gt.txt").write_text("2,1,5,6,7,8,1,1,1\n1,1,4,6,7,8.5,1,1,0.5\n")
    (tmp_path / "A" / "seqinfo.ini").write_text(SEQINFO)
    (tmp_path / "A" / "video.mpg").write_bytes(b"")
    return tmp_path / "A"


def test_a_sequence_is_read_and_sorted_by_frame(folder):
    sequence = read_sequence(folder)
    assert (sequence.name, sequence.length, sequence.frame_rate) == ("A", 3, 25.0)
    assert (sequence.width, sequence.height) == (64, 48)
    assert sequence.video == folder / "video.mpg"
    assert sequence.detections is None
    np.testing.assert_array_equal(sequence.gt.frame, [1, 2])
    np.testing.assert_array_equal(sequence.gt.at(1).xywh, [[4, 6, 7, 8.5]])
    assert len(sequence.gt.at(3)) == 0
    assert find_sequences(folder.parent) == [folder]
    assert find_sequences(folder) == [folder]


def test_pictures_stand_in_for_a_video(folder):
    (folder / "video.mpg").unlink()
    with pytest.raises(MotError, match=r"neither video\.mp4 .* nor img1/"):
        read_sequence(folder)
    (folder / "img1").mkdir()
    assert read_sequence(folder).video == folder / "img1"


def test_classes_and_flags_are_kept_and_mot15_has_pedestrians_only(tmp_path):
    path = tmp_path / "gt.txt"
    path.write_text("1,1,0,0,5,5,0,8,1\n1,2,0,0,5,5,1,1,1\n")
    gt = read_gt(path)
    assert gt.class_id.tolist() == [8, 1]
    assert gt.confidence.tolist() == [0, 1]
    path.write_text("1,1,0,0,5,5,1,-1.5,2.5,0\n")
    assert read_gt(path).class_id.tolist() == [1]


def test_detections_have_no_identity_and_may_repeat_it(tmp_path):
    path = tmp_path / "det.txt"
    path.write_text("1,-1,0,0,5,5,0.5\n1,-1,2,0,5,5,33.1,-1,-1,-1\n\n")
    detections = read_detections(path)
    assert detections.confidence.tolist() == [0.5, 33.1]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("1,2,3", "9 to 10 columns"),
        ("1,2,3,4,5,6,7,8,9,10,11", "9 to 10 columns"),
        ("1,2,3,x,5,6,1,1,1", "numbers separated by commas"),
        ("1 2 3 4 5 6 1 1 1", "numbers separated by commas"),
        ("1,2,3,nan,5,6,1,1,1", "finite numbers"),
        ("0,2,3,4,5,6,1,1,1", "a frame number, an integer from 1"),
        ("1.5,2,3,4,5,6,1,1,1", "a frame number, an integer from 1"),
        ("4,2,3,4,5,6,1,1,1", r"a frame up to 3 \(seqLength\)"),
        ("1,2.5,3,4,5,6,1,1,1", "an integer as id"),
        ("1,2,3,4,0,6,1,1,1", "positive width and height"),
        ("1,2,3,4,5,-6,1,1,1", "positive width and height"),
        ("1,1,3,4,5,6,1,1,1", r"an id once in a frame \(id 1 stands in line 1 too\)"),
    ],
)
def test_a_malformed_row_is_told_with_file_and_line(tmp_path, row, expected):
    path = tmp_path / "gt.txt"
    path.write_text(f"1,1,0,0,5,5,1,1,1\n{row}\n")
    with pytest.raises(MotError, match=rf"gt\.txt, line 2: expected {expected}.*; found '"):
        read_gt(path, length=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"expected a section \[Sequence\]"),
        (SEQINFO.replace("seqLength=3\n", ""), "the key seqLength is missing"),
        (SEQINFO.replace("=25", "=fast"), "frameRate is 'fast'; expected a number"),
        (SEQINFO.replace("=64", "=0"), "imWidth is 0; expected a number above 0"),
    ],
)
def test_a_malformed_seqinfo_names_the_key(folder, text, message):
    (folder / "seqinfo.ini").write_text(text)
    with pytest.raises(MotError, match=message):
        read_sequence(folder)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(MotError, match="no such folder"):
        find_sequences(tmp_path / "missing")
    with pytest.raises(MotError, match=r"no sequence with gt/gt\.txt"):
        find_sequences(tmp_path)
    with pytest.raises(MotError, match="cannot be read as text"):
        read_gt(tmp_path / "gt.txt")


def test_results_read_back(tmp_path):
    boxes = Boxes.of([2, 1, 1], [7, 9, 3], [[1, 2, 3, 4], [0.25, 1, 2, 3], [5, 6, 7, 8]], 0.75)
    write_results(tmp_path / "A.txt", boxes)
    text = (tmp_path / "A.txt").read_text()
    assert text.splitlines()[0] == "1,3,5.00,6.00,7.00,8.00,0.7500,-1,-1,-1"
    back = read_results(tmp_path / "A.txt")
    assert back.track_id.tolist() == [3, 9, 7]
    np.testing.assert_array_equal(back.xywh[1], [0.25, 1, 2, 3])


def test_no_boxes_are_boxes(tmp_path):
    write_results(tmp_path / "A.txt", Boxes.of([], [], []))
    assert len(read_results(tmp_path / "A.txt")) == 0


def test_links_to_sequences_are_followed_and_loops_are_not(folder, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "linked").symlink_to(folder)
    (data / "back").symlink_to(data)
    assert find_sequences(data) == [data / "linked"]
