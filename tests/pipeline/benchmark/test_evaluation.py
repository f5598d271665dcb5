"""The benchmark on drawn sequences with a tiny student: cells, tables, page, and going on."""

import contextlib
import io
import json
import shutil
import subprocess
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

for library in ("trackeval", "pycocotools", "trackers"):
    pytest.importorskip(library)

from jobs.eval import main  # noqa: E402
from jobs.export import main as export  # noqa: E402
from pipeline.benchmark.cells import DETECTION, TRACK, read_boxes  # noqa: E402
from pipeline.benchmark.metrics import preprocess, tracking_scores  # noqa: E402
from pipeline.benchmark.moments import Moment, frame_errors  # noqa: E402
from pipeline.benchmark.output import read_rows  # noqa: E402
from pipeline.benchmark.report import render_report  # noqa: E402
from pipeline.benchmark.results import DEGRADED, Results  # noqa: E402
from pipeline.benchmark.table import markdown  # noqa: E402
from pipeline.datasets.boxes import Boxes  # noqa: E402
from pipeline.datasets.layouts import read_data  # noqa: E402
from pipeline.datasets.mot import read_results, write_results  # noqa: E402
from pipeline.datasets.synthetic import make_synthetic  # noqa: E402

FRAMES = 10
FIGURES = ("cell", "hota", "mota", "idf1", "ap50", "quality")
CHROMIUM = next((shutil.which(n) for n in ("chromium", "chromium-browser") if shutil.which(n)), "")


@pytest.fixture(scope="module")
def place(weights, tmp_path_factory):
    root = tmp_path_factory.mktemp("eval")
    make_synthetic(root / "data", sequences=2, frames=FRAMES, people=3)
    shutil.copy(weights, root / "s.safetensors")
    given = root / "given"
    given.mkdir()
    for name, sequence in read_data(root / "data").sequences.items():
        write_results(given / f"{name}.txt", sequence.gt)
    return root


def benchmark(place: Path, output: Path, *more: str) -> int:
    names = f"student,student:gate_off,student:gate_oracle,bytetrack,gt@{place}/given"
    arguments = [
        f"data={place}/data", f"weights={place}/s.safetensors", f"output={output}",
        f"trackers=[{names}]", "degradations=[noise,codec]", "severities=[5]", "detectors=[]",
        "apart=[]", "cluster.workers=0", "mlflow.enabled=false", "memory=false", *more,
    ]  # fmt: skip
    return main(arguments)


@pytest.fixture(scope="module")
def finished(place, tmp_path_factory):
    """A whole benchmark, to be read or copied, and what it said."""
    output, said = tmp_path_factory.mktemp("finished") / "out", io.StringIO()
    with contextlib.redirect_stdout(said):
        assert benchmark(place, output) == 0
    return output, said.getvalue()


def test_every_cell_is_computed_once_and_a_run_that_was_cut_short_goes_on(
    place, finished, tmp_path, capsys
):
    output = tmp_path / "out"
    shutil.copytree(finished[0], output)
    # Two sequences: four trackers under three conditions, result files under clean alone.
    assert "26 cells: 0 exist already, 26 to compute" in finished[1]
    cells = {path: path.stat().st_mtime_ns for path in (output / "cells").iterdir()}
    before = read_rows(str(output / "rows.parquet"))
    lost = sorted(cells)[3]
    lost.unlink()
    assert benchmark(place, output) == 0
    assert "26 cells: 25 exist already, 1 to compute" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in cells if p != lost} == {
        p: t for p, t in cells.items() if p != lost
    }
    rows = read_rows(str(output / "rows.parquet"))
    assert len(rows) == 26
    assert [[row[f] for f in FIGURES] for row in rows] == [
        [row[f] for f in FIGURES] for row in before
    ]
    truth = [row for row in rows if row["tracker"] == "gt"]
    assert [row["hota"] for row in truth] == pytest.approx([100, 100], abs=0.5)
    for row in rows:
        for key in ("source_sha256", "data_sha256", "config_hash", "code_sha256"):
            assert row[key]
        assert json.loads(row["libraries"])["trackeval"]
    weights = {row["tracker"]: row["semantic_weight"] for row in rows}
    assert weights["student:gate_off"] == 0
    assert weights["student"] > 0
    oracle = {r["condition"]: r["quality"] for r in rows if r["tracker"] == "student:gate_oracle"}
    assert oracle == pytest.approx({"clean": 1, "noise-5": 1 / 6, "codec-5": 1 / 6})


def test_variants_run_together_give_what_they_give_alone(place, finished, tmp_path):
    alone = tmp_path / "alone"
    main(
        [
            f"data={place}/data",
            f"weights={place}/s.safetensors",
            f"output={alone}",
            "trackers=[student:gate_off]",
            "degradations=[noise]",
            "severities=[5]",
            "detectors=[]",
            "cluster.workers=0",
            "memory=false",
            "mlflow.enabled=false",
            "pictures=false",
        ]
    )
    names = [path.name for path in (alone / "cells").iterdir()]
    assert len(names) == 4
    for name in names:
        for kind in (TRACK, DETECTION):
            one, other = (read_boxes(str(d / "cells" / name), kind) for d in (alone, finished[0]))
            np.testing.assert_array_equal(one.xywh, other.xywh)


def test_a_sequence_whose_frames_disagree_is_in_no_mean_and_a_broken_one_costs_itself(
    place, tmp_path, capsys
):
    data = tmp_path / "data"
    shutil.copytree(place / "data", data)
    info = data / "SYNTH-01" / "seqinfo.ini"
    info.write_text(info.read_text().replace(f"seqLength={FRAMES}", "seqLength=12"))
    shutil.copytree(data / "SYNTH-02", data / "SYNTH-03")
    (data / "SYNTH-03" / "video.mp4").write_bytes(b"no video")
    ini = data / "SYNTH-03" / "seqinfo.ini"
    ini.write_text(ini.read_text().replace("SYNTH-02", "SYNTH-03"))
    output = tmp_path / "out"
    code = main(
        [
            f"data={data}",
            f"weights={place}/s.safetensors",
            f"output={output}",
            "trackers=[student]",
            "degradations=none",
            "detectors=[]",
            "cluster.workers=0",
            "memory=false",
            "mlflow.enabled=false",
            "pictures=false",
        ]
    )
    said = capsys.readouterr().out
    assert code == 1
    assert "failed: SYNTH-03, clean, student" in said
    rows = {row["sequence"]: row for row in read_rows(str(output / "rows.parquet"))}
    assert rows["SYNTH-01"]["apart"] and not rows["SYNTH-02"]["apart"]
    assert rows["SYNTH-01"]["problem"] == (
        f"{data}/SYNTH-01/video.mp4: 10 frames decoded, {info} says 12 (seqLength)"
    )
    table = (output / "table.md").read_text()
    assert "**left out** SYNTH-03" in table
    assert "**left out** SYNTH-01, in no mean: " in table


def test_a_result_file_with_frames_that_do_not_exist_takes_its_sequence_out_of_every_mean(
    place, tmp_path, capsys
):
    given = tmp_path / "given"
    shutil.copytree(place / "given", given)
    bad = given / "SYNTH-02.txt"
    count = len(bad.read_text().splitlines())
    bad.write_text(bad.read_text() + f"{FRAMES + 1},1,5,5,9,9,1,-1,-1,-1\n")
    output = tmp_path / "bad"
    names = f"trackers=[student,theirs@{given}]"
    assert benchmark(place, output, names, "degradations=none", "pictures=false") == 1
    said = capsys.readouterr().out
    expected = f"{bad}, line {count + 1}: expected a frame up to {FRAMES} (seqLength)"
    assert expected in said
    rows = read_rows(str(output / "rows.parquet"))
    apart = {(row["sequence"], row["tracker"]): row["apart"] for row in rows}
    assert apart == {
        ("SYNTH-01", "student"): False, ("SYNTH-01", "theirs"): False,
        ("SYNTH-02", "student"): True,
    }  # fmt: skip
    table = (output / "table.md").read_text()
    assert f"**left out** SYNTH-02, in no mean: {expected}" in table
    bad.unlink()
    assert benchmark(place, output, f"trackers=[theirs@{given}]", "pictures=false") == 1
    assert f"{bad}: no such file; a tracker's folder holds one" in capsys.readouterr().out


def test_what_is_exported_and_read_back_has_the_scores_of_the_table(place, tmp_path, capsys):
    names = "trackers=[student,student:gate_off,sort]"
    run = tmp_path / "run"
    benchmark(place, run, names, "degradations=[noise]", "pictures=false")
    out = tmp_path / "files"
    with pytest.raises(SystemExit):
        export([f"input={run}", f"output={out}", "min_trust=0.5"])
    assert "is a run of vsdmot eval, which is exported whole" in capsys.readouterr().err
    assert export([f"input={run}", f"output={out}"]) == 0
    assert "12 result files, and motchallenge.zip in each of 6 folders" in capsys.readouterr().out
    sequences = read_data(place / "data").sequences
    scored = 0
    for row in read_rows(str(run / "rows.parquet")):
        folder = out / row["tracker"].replace(":", ".") / row["condition"] / "seed-0"
        sequence = sequences[row["sequence"]]
        back = read_results(folder / f"{sequence.name}.txt", sequence.length)
        scores, _ = tracking_scores({sequence.name: preprocess(sequence.gt, back)})
        for figure, value in asdict(scores[sequence.name]).items():
            assert row[figure] == value or (row[figure] is None and value != value), figure
        scored += len(back)
        with zipfile.ZipFile(folder / "motchallenge.zip") as archive:
            assert archive.namelist() == ["SYNTH-01.txt", "SYNTH-02.txt"]
    assert scored


def row(tracker: str, condition: str, sequence: str, hota: float, seed: int = 0) -> dict:
    return {
        "tracker": tracker, "condition": condition, "sequence": sequence, "hota": hota,
        "seed": seed, "apart": False, "kind": condition.split("-")[0], "severity": 0,
    }  # fmt: skip


def test_means_differences_and_what_is_called_nothing():
    rows = [row("a", "clean", s, h) for s, h in (("x", 40.0), ("y", 60.0), ("z", 50.0))]
    rows += [row("b", "clean", s, h) for s, h in (("x", 45.0), ("y", 64.0), ("z", 56.0))]
    rows += [row("a", "noise-5", "x", 30.0, 0), row("a", "noise-5", "x", 20.0, 1)]
    rows += [row("a", "clean", "night", 0.0) | {"apart": True}]
    results = Results(rows)
    clean = results.estimate("a", "clean")
    assert clean.mean == pytest.approx(50) and clean.low < 50 < clean.high
    better = results.difference("b", "a", "clean")
    assert better.mean == pytest.approx(5) and not better.is_nothing
    assert results.difference("a", "a", "clean").is_nothing
    assert results.estimate("a", DEGRADED).mean == pytest.approx(25)
    assert results.estimate("b", DEGRADED) is None
    worse = Results([r | {"hota": r["hota"] - 3} for r in rows])
    assert results.difference("a", "a", "clean", worse).mean == pytest.approx(3)


def test_a_difference_is_over_the_conditions_that_both_have():
    """The oracle has no cell under the chain, and a run before may have had fewer conditions."""
    rows = [row("a", c, s, h) for c, h in (("noise-5", 30.0), ("chain", 10.0)) for s in "xy"]
    results = Results([*rows, *(row("oracle", "noise-5", s, 34.0) for s in "xy")])
    assert results.estimate("oracle", DEGRADED) is None
    assert results.difference("oracle", "a", DEGRADED).mean == pytest.approx(4)
    fewer = Results([row("a", "noise-5", s, 25.0) for s in "xy"])
    assert results.difference("a", "a", DEGRADED, fewer).mean == pytest.approx(5)


def test_frame_errors_of_a_swap_known_by_hand():
    frame = np.repeat(np.arange(1, 7), 2)
    ids = np.tile([1, 2], 6)
    xywh = np.stack([ids * 100.0, frame * 0 + 5.0, frame * 0 + 20.0, frame * 0 + 40.0], axis=1)
    swapped = np.where(frame >= 4, 3 - ids, ids)
    keep = ~((frame == 2) & (ids == 1))
    guess = Boxes.of(frame[keep], swapped[keep], xywh[keep])
    errors = frame_errors(Boxes.of(frame, ids, xywh), guess)
    assert errors[2]["MISS"] == 1
    assert errors[4]["SWITCH"] == 2
    assert sum(errors[5].values()) == 0


def test_a_comparison_says_what_changed(place, tmp_path):
    output, few = tmp_path / "out", ("trackers=[student]", "degradations=none")
    benchmark(place, output, "name=first", *few)
    benchmark(place, output, "baseline=first", *few, "preprocessing=false")
    text = (output / "table.md").read_text()
    assert "## Against the last run" in text
    assert "## Against the baseline first" in text
    assert "| student | +0.0 [+0.0, +0.0] *nothing* |" in text
    with pytest.raises(SystemExit):
        benchmark(place, output, "baseline=never", *few)


def test_the_page_escapes_names_and_a_browser_shows_it(tmp_path):
    evil = "<script>document.title='run'</script>"
    rows = [row(evil, c, "x", 40.0) | {"quality": 0.5} for c in ("clean", "noise-5")]
    rows[1]["severity"] = 5
    results = Results(rows)
    pixel = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
    moments = [
        Moment(
            sequence=evil,
            condition="clean",
            tracker=evil,
            frame=3,
            switches=1,
            misses=2,
            false=0,
            picture=pixel,
        )
    ]
    page = render_report(results, markdown_of(results), {}, {evil: evil}, moments)
    assert evil not in page and "&lt;script&gt;" in page
    assert "<svg" in page and 'id="heat"' in page
    if not CHROMIUM:
        pytest.skip("chromium is not installed: nobody looked at the page")
    (tmp_path / "page.html").write_text(page)
    shot = tmp_path / "page.png"
    browser = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,1600"]
    subprocess.run(
        [*browser, f"--screenshot={shot}", (tmp_path / "page.html").as_uri()],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    from PIL import Image

    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] == 1000
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def markdown_of(results: Results) -> str:
    whole = [r | {"clean": None} for r in results.rows]
    return markdown(Results(whole))
