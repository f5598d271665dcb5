"""Exports: a real run out, read back, and what the server asks of names and ids."""

import io
import zipfile

import numpy as np
import pytest

from jobs.export import main
from jobs.track import main as track
from pipeline.benchmark.export import (
    ExportError,
    motchallenge_files,
    run_tracks,
    sequence_name,
    zipped,
)
from pipeline.datasets.boxes import Boxes
from pipeline.datasets.mot import read_results
from tests.videos import write_video


def test_a_run_goes_out_and_reads_back(weights, tmp_path):
    for name in ("MOT17-03", "other"):
        (tmp_path / "in" / name).mkdir(parents=True)
        write_video(tmp_path / "in" / name / "video.mp4", frames=8)
    run = tmp_path / "run"
    assert track([
        f"input={tmp_path}/in", f"output={run}", f"weights={weights}",
        "cluster.workers=0", "mlflow.enabled=false", "report=false",
    ]) == 0  # fmt: skip
    out = tmp_path / "out"
    assert main([f"input={run}", f"output={out}"]) == 0
    assert sorted(p.name for p in out.glob("*.txt")) == [
        "MOT17-03-DPM.txt", "MOT17-03-FRCNN.txt", "MOT17-03-SDP.txt", "other.txt",
    ]  # fmt: skip
    expected = run_tracks(str(run), "person")["other"]
    assert len(expected)
    back = read_results(out / "other.txt", length=8)
    np.testing.assert_array_equal(back.frame, expected.frame)
    np.testing.assert_allclose(back.xywh, expected.xywh, atol=0.0051)
    assert back.track_id.min() >= 1
    with zipfile.ZipFile(out / "motchallenge.zip") as archive:
        assert archive.read("other.txt") == (out / "other.txt").read_bytes()


def test_ids_are_counted_from_1_and_archives_are_the_same_every_time():
    boxes = Boxes.of([1, 1], [0, 4], [[1, 2, 3, 4], [5, 6, 7, 8]], 0.5)
    files = motchallenge_files({"A": boxes, "none": boxes[:0]})
    assert files["A.txt"].splitlines()[0].startswith(b"1,1,1.00,2.00")
    assert files["none.txt"] == b""
    assert zipped(files) == zipped(files)
    assert zipfile.ZipFile(io.BytesIO(zipped(files))).namelist() == ["A.txt", "none.txt"]


def test_a_sequence_is_called_by_its_folder_where_the_file_says_nothing():
    assert sequence_name("val/TUD-Campus/video.mp4") == "TUD-Campus"
    assert sequence_name("cams/gate.mp4") == "gate"


def test_an_empty_run_says_what_to_do(tmp_path):
    with pytest.raises(ExportError, match=r"no video is tracked; run vsdmot track"):
        run_tracks(str(tmp_path), "person")
