"""Exports of scored tracks: what the server of MOTChallenge asks of names and ids."""

import io
import zipfile

from pipeline.benchmark.export import motchallenge_files, zipped
from pipeline.datasets.boxes import Boxes


def test_ids_are_counted_from_1_and_archives_are_the_same_every_time():
    boxes = Boxes.of([1, 1], [0, 4], [[1, 2, 3, 4], [5, 6, 7, 8]], 0.5)
    files = motchallenge_files({"A": boxes, "none": boxes[:0]})
    assert files["A.txt"].splitlines()[0].startswith(b"1,1,1.00,2.00")
    assert files["none.txt"] == b""
    assert zipped(files) == zipped(files)
    assert zipfile.ZipFile(io.BytesIO(zipped(files))).namelist() == ["A.txt", "none.txt"]
