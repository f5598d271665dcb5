"""The targets' own readers, which need other versions of libraries than this project.

They run in an environment that uv makes for them, so this needs a network the first time.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.exchange.config import TracksConfig
from pipeline.exchange.export import export_tracks
from tests.pipeline.exchange.tables import Video, write_tables

DATUMARO, LABEL_STUDIO = "datumaro==1.13.12", "label-studio-sdk==2.1.2"
SCRIPT = Path(__file__).with_name("foreign_readers.py")
WALK = tuple((f, 3, (2.0 * f, 40.0 + (f % 7), 20.0, 60.0)) for f in range(40) if f not in (9, 10))
VIDEO = Video(
    "<a> & 'b' é.mp4", (320, 240), 50, tuple(range(50)), tuple(n / 25 for n in range(50)),
    (*WALK, *((f, 900, (200.0, 100.0, 30.0, 90.0)) for f in range(20, 50))),
)  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path):
    return write_tables(tmp_path / "run", [VIDEO])


def read(package: str, *words: str):
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "run", "--isolated", "--no-project", "--quiet", "--python", sys.executable,
               "--with", package, "python", SCRIPT, *words]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_datumaro_reads_cvat(run, tmp_path):
    export_tracks(run, str(tmp_path / "cvat"), TracksConfig("cvat", tolerance_px=0.0))
    rows = read(DATUMARO, "datumaro", str(tmp_path / "cvat" / "v0.xml"), "cvat")
    shown = [row for row in rows if not row[2]]
    assert {(9, 3), (40, 3)} == {(f, i) for f, i, outside, *_ in rows if outside}
    for frame, track_id, _, *box in shown:
        np.testing.assert_allclose(box, VIDEO.boxes[frame, track_id], atol=0.02)
    assert len(shown) > 10


def test_datumaro_reads_coco(run, tmp_path):
    export_tracks(run, str(tmp_path / "coco"), TracksConfig("coco"))
    (tmp_path / "set" / "annotations").mkdir(parents=True)
    (tmp_path / "set" / "images").mkdir()
    target = tmp_path / "set" / "annotations" / "instances_default.json"
    (tmp_path / "coco" / "coco.json").rename(target)
    rows = read(DATUMARO, "datumaro", str(tmp_path / "set"), "coco_instances")
    found = sorted((frame, *np.round(box, 1)) for frame, _, _, *box in rows)
    assert found == sorted((f, *np.round(box, 1)) for (f, _), box in VIDEO.boxes.items())


def test_label_studio_accepts_and_interpolates_its_tasks(run, tmp_path):
    export_tracks(run, str(tmp_path), TracksConfig("labelstudio", tolerance_px=0.0))
    back = read(LABEL_STUDIO, "labelstudio", str(tmp_path), "v0")
    assert back["errors"] == []
    found = {(f - 1, int(name.removeprefix("track-"))): box for f, name, *box in back["rows"]}
    assert found.keys() == VIDEO.boxes.keys()
    for place, box in found.items():
        pixels = np.array(box) * [3.2, 2.4, 3.2, 2.4]
        np.testing.assert_allclose(pixels, VIDEO.boxes[place], atol=0.01)
