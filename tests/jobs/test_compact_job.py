"""`vsdmot compact` between runs of `vsdmot track`, and what reads the tables afterwards."""

import shutil
from collections import Counter

import pyarrow.parquet as pq
import pytest

from jobs.compact import main as compact
from jobs.export import main as export
from jobs.render import main as render
from jobs.track import main as track
from pipeline.storage.reading import table_files
from tests.videos import write_text, write_video


@pytest.fixture(scope="module")
def made(weights, tmp_path_factory):
    """An archive with a bad file, and its tables."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "in" / "cam1").mkdir(parents=True)
    for name in ("cam1/a", "cam1/b", "c"):
        write_video(folder / "in" / f"{name}.mp4", frames=8)
    write_text(folder / "in" / "text.mp4")
    assert tracked(folder, weights) == 3
    return folder


def tracked(folder, weights):
    return track([
        f"input={folder}/in", f"output={folder}/out", f"weights={weights}",
        "cluster.workers=0", "mlflow.enabled=false", "report=false",
    ])  # fmt: skip


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy")


def rows(output, table):
    files = table_files(str(output), table)
    keys = ["video_id", "frame_index", "track_id"][: 3 if table == "tracks" else 1]
    found = [pq.ParquetFile(file).read(columns=keys).to_pylist() for file in files]
    return Counter(tuple(row.values()) for part in found for row in part)


def test_track_knows_what_is_compacted_and_adds_what_is_new(folder, weights, capsys):
    out = folder / "out"
    before = {table: rows(out, table) for table in ("tracks", "frames", "videos")}
    assert compact([f"{out}", "partition=folder", "keep_s=0"]) == 0
    said = capsys.readouterr().out
    assert "3 videos merged into 2 sets of files" in said
    assert "table_files(" in said
    assert not list((out / "tracks").iterdir()) and not list((out / "videos").iterdir())
    assert tracked(folder, weights) == 3
    assert not list((out / "tracks").iterdir())
    assert {table: rows(out, table) for table in before} == before
    write_video(folder / "in" / "d.mp4", frames=8)
    assert tracked(folder, weights) == 3
    assert len(list((out / "videos").iterdir())) == 1
    assert compact([f"{out}", "partition=folder", "keep_s=0"]) == 0
    assert len(rows(out, "videos")) == 4
    assert rows(out, "tracks") > before["tracks"]


def test_exports_and_drawings_are_the_same_after_compaction(folder):
    pytest.importorskip("supervision")
    out = folder / "out"
    assert export([f"{out}", f"{folder}/before"]) == 0
    assert compact([f"{out}", "keep_s=0"]) == 0
    assert export([f"{out}", f"{folder}/after"]) == 0
    names = sorted(path.name for path in (folder / "before").iterdir())
    assert names == sorted(path.name for path in (folder / "after").iterdir()) != []
    for name in names:
        assert (folder / "after" / name).read_bytes() == (folder / "before" / name).read_bytes()
    assert render([f"output={out}", "video=b.mp4"]) == 0
    assert len(list((out / "overlays").glob("b-*.mp4"))) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["OUT", "partition=hour"], 2, "partition"),
        (["OUT", "file_mb=0"], 2, "file_mb"),
        (["OUT/none"], 2, "run.json is missing"),
    ],
)
def test_wrong_calls_say_what_to_do(folder, arguments, code, said, capsys):
    with pytest.raises(SystemExit) as left:
        compact([word.replace("OUT", str(folder / "out")) for word in arguments])
    assert left.value.code == code
    assert said in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["in", "out"]
    assert not {"none", "compacted"} & {path.name for path in (folder / "out").iterdir()}


def test_a_damaged_video_is_told_and_left(folder, capsys):
    path = min((folder / "out" / "tracks").iterdir())
    path.write_bytes(path.read_bytes()[:-5])
    assert compact([f"{folder}/out", "keep_s=0"]) == 1
    said = capsys.readouterr().out
    assert "2 videos merged" in said
    assert f"{path.stem}: its file of tracks" in said
