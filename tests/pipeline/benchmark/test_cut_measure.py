"""The measure of shot cuts: what it shows the detector, and how it counts."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs.measure import main
from jobs.measure_cuts import cut_table
from pipeline.benchmark.long import cut_measure
from pipeline.benchmark.long.cut_measure import cells_of_sequence, joined_row, sequence_row
from pipeline.datasets.mot import read_sequence
from pipeline.datasets.synthetic import make_synthetic
from pipeline.degrade.conditions import conditions


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make_synthetic(folder, sequences=2, frames=24, people=3)
    return folder


def scenes(count=4, frames=30):
    """Cells of unrelated pictures, each with a little noise in every frame."""
    draw = np.random.default_rng(0)
    for _ in range(count):
        scene = np.kron(draw.integers(20, 220, (12, 20)), np.ones((2, 2)))
        yield (scene + draw.normal(0, 2, (frames, 24, 40))).astype(np.uint8)


def test_all_cuts_of_strings_are_counted_and_wrong_ones_apart():
    shown = {str(number): [cells] for number, cells in enumerate(scenes())}
    row = joined_row("clean", shown)
    assert row["cuts"] == 60 * 11
    assert (row["found"], row["wrong"]) == (row["cuts"], 0)
    assert row["frames"] > 60 * 12 * 5
    assert joined_row("clean", shown) == row
    jump = np.concatenate([cells[:9] for cells in scenes(2)])
    assert sequence_row("s", "clean", jump) | {"found": 0} == {
        "sequence": "s", "condition": "clean", "frames": 18, "cuts": 0, "found": 0, "wrong": 1,
    }  # fmt: skip


def test_light_changes_in_the_frames_it_should(data):
    sequence = read_sequence(data / "SYNTH-01")
    cells = dict(cells_of_sequence(sequence, conditions(["noise", "codec"], [5], [0]), 22))
    assert {n: c.shape for n, c in cells.items()} == {
        "clean": (24, 24, 40),
        **dict.fromkeys(["flash", "lights", "noise-5", "codec-5"], (22, 24, 40)),
    }
    clean = cells["clean"][:22].astype(int)
    assert ((cells["flash"] != clean).any((1, 2)).nonzero()[0] == [10, 20]).all()
    # The first one hits the upper half, the second one all of the picture.
    assert (cells["flash"][10, 12:] == clean[10, 12:]).all()
    assert (cells["flash"][20] > clean[20]).mean() > 0.9
    dark = (cells["lights"] < clean / 2).mean((1, 2)) > 0.9
    assert dark.tolist() == [False] * 10 + [True] * 10 + [False] * 2


def test_command_prints_and_writes_a_row_for_each_sequence_and_string(
    data, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(cut_measure, "_STRINGS", 2)
    code = main(
        ["what=cuts", f"data={data}", "frames=12", "kinds=[noise]", "severities=[3]",
         f"output={tmp_path}", "apart=[]"]
    )  # fmt: skip
    assert code == 0
    rows = pq.read_table(tmp_path / "cuts.parquet").to_pylist()
    names = ["clean", "flash", "lights", "noise-3"]
    assert [r["condition"] for r in rows] == [*names * 2, *names, "mixed"]
    assert sum(r["cuts"] for r in rows if r["sequence"] == "joined") == 5 * 2 * 11
    assert cut_table(rows).row_count == 5
    assert "cuts between shots" in capsys.readouterr().out
