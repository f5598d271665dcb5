"""The bench measures everything it says it does; how fast anything is, is no matter here."""

import json

import numpy as np
import pytest
from torch import nn

from jobs.bench import main as bench_job
from pipeline.speed import bench as measures
from pipeline.speed.cost import count_gflops, count_parameters
from pipeline.speed.queries.measure import QUERIES, SIDES
from pipeline.speed.readings import Measure, Reading, Spread, in_turns, ratio
from pipeline.speed.student_path import Rows, difference
from pipeline.storage.compacted import MERGED
from tests.tiny import tiny_tracker
from tests.videos import write_text, write_video


@pytest.fixture
def here(monkeypatch):
    """Measure in this process; a process of its own for each test would take seconds to start."""
    from contextlib import contextmanager

    @contextmanager
    def call():
        yield lambda function, *arguments: function(*arguments)

    monkeypatch.setattr(measures, "one_core", call)


def run(tmp_path, weights, *arguments):
    video = write_video(tmp_path / "a b.mp4", frames=20)
    given = f"weights={weights}", f"video={video}", f"output={tmp_path / 'out'}", "frames=10"
    assert bench_job([*given, "repeats=2", *arguments]) == 0
    return json.loads((tmp_path / "out" / "bench.json").read_text())["measures"]


def test_the_path_is_measured_in_each_runtime_and_their_rows_are_compared(
    tmp_path, weights, here, capsys
):
    path = run(tmp_path, weights, "measures=[path]")["path"]
    assert set(path["readings"]) == {"torch", "exact", "fast"}
    for readings in path["readings"].values():
        assert len(readings) == 2
        for reading in readings:
            assert reading["frames"] == 10
            assert min(reading["wall_s"], reading["core_s"]) > 0
            assert {"decode", "encode", "step"} <= reading["parts"].keys()
    assert {"graph dense", "graph detect", "graph step"} <= path["readings"]["exact"][0][
        "parts"
    ].keys()
    assert [r["name"] for r in path["ratios"]] == ["exact / torch", "fast / torch"]
    assert path["facts"]["exact against torch"]["rows"][0] > 0
    assert path["facts"]["exact against torch"]["same_ids"]
    facts = path["facts"]
    assert facts["GFLOPs of encoding a frame"] > 0
    for kind, number in (("torch", "float32"), ("exact", "float32"), ("fast", "bfloat16")):
        rate = facts["GFLOP/s of a core in matrix products"][number]
        least = 1000 * facts["GFLOPs of encoding a frame"] / rate
        assert facts[f"least ms of encoding in {kind}"] == pytest.approx(least)
        taken = np.median([r["parts"]["encode"] for r in path["readings"][kind]])
        assert facts[f"{kind} has of that limit"] == pytest.approx(least / taken)
    said = capsys.readouterr().out
    assert "exact / torch" in said and "no detector is given" in said


def test_figures_of_a_measure_that_is_not_taken_stay(tmp_path, weights, here):
    run(tmp_path, weights, "measures=[student]")
    both = run(tmp_path, weights, "measures=[path]")
    assert set(both) == {"student", "path"}
    student = both["student"]
    assert student["milliseconds"]["tracker"] > student["milliseconds"]["semantics"] > 0
    assert sum(student["encode_share"].values()) == pytest.approx(1, abs=0.2)
    assert min(student["parameters_m"].values()) > 0 and min(student["gflops"].values()) > 0


def test_a_quiet_video_is_skipped_in_part(tmp_path, weights, here):
    still = run(tmp_path, weights, "measures=[still]", "still_s=4")["still"]
    assert still["facts"]["quiet share"] == pytest.approx(0.8, abs=0.05)
    for readings in still["readings"].values():
        assert readings[0]["frames"] == 100


def test_overlays_are_measured_in_units_of_real_time(tmp_path, weights, monkeypatch):
    overlay = pytest.importorskip("pipeline.speed.overlay", exc_type=ImportError)
    monkeypatch.setattr(overlay, "_WIDTH", 320)
    monkeypatch.setattr(overlay, "_HEIGHT", 180)
    monkeypatch.setattr(overlay, "_FRAMES", 8)
    found = run(tmp_path, weights, "measures=[overlay]")["overlay"]
    assert {name: side[0]["frames"] for name, side in found["readings"].items()} == {
        "blur=none": 8, "blur=people": 8
    }  # fmt: skip
    times = [8 / 25 / reading["wall_s"] for reading in found["readings"]["blur=none"]]
    assert found["ratios"][0]["spread"]["greatest"] == pytest.approx(max(times))


def test_queries_have_one_answer_before_and_after_compaction(tmp_path, weights):
    found = run(tmp_path, weights, "measures=[queries]", "videos=12")["queries"]
    assert len(found["ratios"]) == len(QUERIES)
    assert found["facts"]["files before, MB, MB on disk"][0] == 12 * 4  # none has seams
    assert found["facts"]["files after, MB, MB on disk"][0] == len(MERGED)
    assert all(found["facts"][f"{q.name}, {side}, ms"] > 0 for q in QUERIES for side in SIDES)


def test_scaling_without_its_rates_says_what_to_measure(tmp_path, weights, capsys):
    video = write_video(tmp_path / "a.mp4", frames=20)
    with pytest.raises(SystemExit) as leaving:
        bench_job([str(video), f"output={tmp_path / 'out'}", "measures=[scaling]"])
    assert leaving.value.code == 1
    assert "add it: measures=[job,scaling]" in " ".join(capsys.readouterr().err.split())


def test_scaling_is_computed_from_the_record(tmp_path, capsys):
    video = write_video(tmp_path / "a.mp4", frames=20)
    job = {
        "readings": {"decode alone": [{"frames": 100, "core_s": 0.5}]},
        "facts": {"rows a second through the driver": {"median": 50.0}},
    }
    out = tmp_path / "out"
    out.mkdir()
    (out / "bench.json").write_text(json.dumps({"measures": {"job": job}}))
    given = "scaling.gpu_frames_s=1000", "scaling.gpu_cores=4", "scaling.video_minutes=1"
    assert bench_job([str(video), f"output={out}", "measures=[scaling]", *given]) == 0
    found = json.loads((out / "bench.json").read_text())["measures"]
    assert found["job"] == job
    clusters = {c["gpus"]: c for c in found["scaling"]["clusters"]}
    assert clusters[10]["frames_s"] == 10 * 4 * 200  # four cores decode 200 frames/s each
    assert clusters[1000]["limits"]["rows of the driver"] == 50 * 1500
    assert clusters[1000]["frames_s"] == 50 * 1500
    said = " ".join(capsys.readouterr().out.split())
    assert "wants 5.0 cores" in said and "rows of the driver are used up by 94 GPUs" in said


def test_ratios_are_of_the_same_turn():
    turns = iter([9.0, 1.0, 4.0, 2.0, 8.0, 4.0])  # the first turn warms up

    def side():
        return Reading(8, wall_s=next(turns), core_s=1.0)

    readings = in_turns({"a": side, "b": side}, repeats=2)
    assert [r.wall_s for r in readings["a"]] == [4.0, 8.0]
    assert ratio(readings, "b", "a", "wall").spread == Spread(2.0, 2.0, 2.0)
    assert ratio(readings, "b", "a", "core").spread == Spread(1.0, 1.0, 1.0)


def test_the_difference_of_rows_counts_those_without_a_partner():
    rows = Rows(np.array([[0, 1], [1, 1]]), np.zeros((2, 4)))
    assert difference(rows, rows)["same_ids"]
    other = Rows(np.array([[0, 1], [1, 2]]), np.full((2, 4), 0.5))
    found = difference(rows, other)
    assert not found["same_ids"]
    assert (found["other_rows"], found["pixels"]) == (2, 0.5)


def test_parameters_by_module_add_up():
    counts = count_parameters(tiny_tracker())
    assert sum(counts.values()) == pytest.approx(2 * counts["total"])


def test_gflops_are_those_of_the_layers_and_little_more():
    tracker = tiny_tracker()
    by_hand = 0

    def count(layer, inputs, output):
        nonlocal by_hand
        # Each output value is a sum of this many products, and the addition counts as well.
        products = layer.weight[0].numel()
        by_hand += 2 * products * output.numel()

    for layer in tracker.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    found = count_gflops(tracker)
    # Beside the layers there are only attention's own products.
    assert 0.95 < by_hand / 1e9 / found["total"] <= 1
    assert found["total"] == found["encode"] + found["step"]


def test_what_cannot_be_measured_is_said(tmp_path, weights, capsys):
    cases = {
        f"video={write_text(tmp_path / 'a.mp4')}": "not a video",
        f"video={tmp_path}": "2 videos found; give one file",
        f"video={tmp_path / 'none.mp4'}": "check the spelling",
    }
    write_video(tmp_path / "b.mp4", frames=2)
    for video, reason in cases.items():
        with pytest.raises(SystemExit) as leaving:
            bench_job([f"weights={weights}", video, f"output={tmp_path / 'out'}"])
        assert leaving.value.code == 1
        assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_job_is_measured_on_ray_and_against_a_plain_one(tmp_path, weights):
    job = run(tmp_path, weights, "measures=[job]", "repeats=1")["job"]
    for name in ("job, one actor", "job, two actors", "plain job"):
        (reading,) = job["readings"][name]
        assert reading["frames"] > 0 and reading["wall_s"] > 0
        assert reading["parts"]["actors"] > 0
    assert job["facts"]["rows a second through the driver"]["least"] > 0


@pytest.mark.slow
def test_memory_is_measured_by_length(monkeypatch):
    from pipeline.speed.memory_growth import memory_growth

    growth = memory_growth((0.5, 1), rate=2)
    assert growth.frames == [60, 120]
    assert growth.rows[1] > growth.rows[0] > 0
    assert 0.5 < growth.ratio < 2


def test_a_measure_that_is_printed_has_its_aims(capsys):
    from rich.console import Console

    from pipeline.speed.readings import Ratio
    from pipeline.speed.tables import measure_tables

    made = Measure(
        "title", "a file", {"a": [Reading(10, 1.0, 2.0, {"decode": 3.0})]},
        [Ratio("a / b", "core", Spread(1.0, 2.0, 3.0), 2.2)], {"fact": 0.5},
    )  # fmt: skip
    for table in measure_tables(made):
        Console(width=200).print(table)
    said = capsys.readouterr().out
    for text in ("title: a file", "decode 3", "1 / 2 / 3", ">= 2.2", "fact", "0.5"):
        assert text in said
