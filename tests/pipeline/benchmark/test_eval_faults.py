"""The benchmark as a command: killed in the middle, run twice, on Ray; and what it logs."""

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

for library in ("trackeval", "pycocotools", "trackers"):
    pytest.importorskip(library)

from pipeline.benchmark.output import read_rows  # noqa: E402
from pipeline.datasets.layouts import read_data  # noqa: E402
from pipeline.datasets.mot import write_results  # noqa: E402
from pipeline.datasets.synthetic import make_synthetic  # noqa: E402
from tests.warm import WarmServer  # noqa: E402

pytestmark = pytest.mark.slow  # whole processes, again and again
SCORES = ("hota", "det_a", "ass_a", "mota", "idf1", "id_switches", "ap50", "quality", "apart")
TRACKERS = "trackers=[student,student:gate_off,bytetrack,sort]"


@pytest.fixture(scope="module")
def place(weights, tmp_path_factory):
    root = tmp_path_factory.mktemp("faults")
    make_synthetic(root / "data", sequences=2, frames=12, people=3)
    shutil.copy(weights, root / "s.safetensors")
    return root


def command(place: Path, output: str, *more: str) -> tuple[str, list[str]]:
    return "jobs.eval", [
        f"data={place}/data",
        f"weights={place}/s.safetensors", f"output={place}/{output}", TRACKERS,
        "degradations=[noise,codec]", "severities=[3,5]", "mlflow.enabled=false", "pictures=false",
        "memory=false", "cluster.workers=0", *more,
    ]  # fmt: skip


@pytest.fixture
def run(place: Path, warm: WarmServer) -> Callable[..., str]:
    """Runs the command to its end; what it said."""

    def run(output: str, *more: str) -> str:
        done = warm.run(*command(place, output, *more), timeout=280)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def cells(place: Path, output: str) -> dict[str, int]:
    found = (place / output / "cells").glob("*.parquet")
    return {path.name: path.stat().st_mtime_ns for path in found}


def scores(place: Path, output: str) -> list[dict[str, object]]:
    """What a table says, but for how long it took."""
    rows = read_rows(str(place / output / "rows.parquet"))
    names = ("sequence", "condition", "seed", "tracker", "cell", *SCORES)
    return [{name: row[name] for name in names} for row in rows]


def test_killed_it_goes_on_ends_as_if_nothing_had_been_and_computes_nothing_twice(place, run, warm):
    # Undisturbed: 2 sequences x 5 conditions x 4 trackers.
    assert "40 cells: 0 exist already, 40 to compute" in run("whole")
    expected = scores(place, "whole")
    assert len(expected) == 40

    process = warm.start(*command(place, "killed"))
    until = time.monotonic() + 200
    while len(cells(place, "killed")) < 7:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until, "no cell came"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    left = cells(place, "killed")
    assert 7 <= len(left) < 40
    assert not (place / "killed" / "rows.parquet").exists()

    said = run("killed")
    assert f"40 cells: {len(left)} exist already, {40 - len(left)} to compute" in said
    now = cells(place, "killed")
    assert {name: now[name] for name in left} == left
    assert scores(place, "killed") == expected

    assert "40 cells: 40 exist already, 0 to compute" in run("killed")
    assert cells(place, "killed") == now


def test_on_ray_it_says_the_same(place, run):
    run("here", "degradations=[noise]", "severities=[5]")
    run("ray", "degradations=[noise]", "severities=[5]", "cluster.workers=2")
    assert scores(place, "ray") == scores(place, "here")


def test_table_page_and_figures_reach_mlflow_with_what_changed(place, run, tmp_path):
    from mlflow import MlflowClient

    store = f"sqlite:///{tmp_path}/log.db"
    logged = ("mlflow.enabled=true", f"mlflow.uri={store}", "mlflow.experiment=bench")
    given = tmp_path / "given"
    given.mkdir()
    few = (f"trackers=[student,sort,given@{given}]", "degradations=[noise]", "severities=[5]")
    for name, sequence in read_data(place / "data").sequences.items():
        write_results(given / f"{name}.txt", sequence.gt)
    run("logged", *few, *logged, "name=first", "pictures=true", "memory=true")
    for file in given.iterdir():  # a tracker that has become worse
        file.write_text("".join(file.read_text().splitlines(keepends=True)[::3]))
    said = run("logged", *few, *logged, "baseline=first")

    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name("bench")
    last, first = client.search_runs([experiment.experiment_id])
    for one in (first, last):
        assert one.info.status == "FINISHED"
        files = {file.path for file in client.list_artifacts(one.info.run_id)}
        assert files == {"rows.parquet", "table.md", "report.html"}
    assert first.data.metrics["student/peak_memory_mb/clean"] > 0
    assert {"student/hota/clean", "student/hota/noise-5", "sort-student/hota/degraded"} <= set(
        first.data.metrics
    )
    page = Path(client.download_artifacts(first.info.run_id, "report.html", str(tmp_path)))
    assert '<figure><img src="data:image/jpeg' in page.read_text() and "<svg" in page.read_text()
    table = Path(client.download_artifacts(last.info.run_id, "table.md", str(tmp_path))).read_text()
    assert "## Against the last run" in table and "## Against the baseline first" in table
    changed, same = (
        [line for line in table.splitlines() if line.startswith(f"| {name} |") and end in line]
        for name, end in (("given", "**worse**"), ("student", "*nothing*"))
    )
    assert len(changed) == len(same) == 2
    assert table in said
