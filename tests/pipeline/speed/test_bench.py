"""The bench measures everything it says it does; how fast anything is, is no matter here."""

import json

import pytest
from torch import nn

from jobs.bench import main as bench_job
from pipeline.benchmark.speed import count_gflops, count_parameters
from tests.tiny import tiny_tracker
from tests.videos import write_text, write_video

STAGES = {"decode", "encode", "step", "model", "path"}


def test_every_figure_is_there_and_possible(tmp_path, weights, capsys):
    video = write_video(tmp_path / "a b.mp4", frames=20)
    output = tmp_path / "out"
    arguments = [f"weights={weights}", f"video={video}", f"output={output}", "frames=10"]
    assert bench_job([*arguments, "window=4"]) == 0
    said = capsys.readouterr().out
    assert "whole path" in said and "semantics" in said
    found = json.loads((output / "bench.json").read_text())
    assert found["frames"] == {"decode": 20, "model": 10, "path": 20}
    assert set(found["frames_per_second"]) == set(found["to_decode"]) == STAGES
    assert found["to_decode"]["decode"] == 1
    positive = [found["times_real_time"], found["peak_rss_mb"], found["machine"]["threads"]]
    for group in ("parameters_m", "gflops", "frames_per_second", "to_decode"):
        positive += found[group].values()
    for group in ("milliseconds", "semantics_cheaper"):
        positive += found[group].values()
    assert min(positive) > 0 and found["semantics_share"] < 1
    assert found["milliseconds"]["tracker"] > found["milliseconds"]["semantics"]
    assert "ViT-B/32 at 224x224" in said
    for group, names in {
        "path_share": {"wait", "encode", "step"},
        "encode_share": {"semantics", "quality", "statistics", "gate", "fusion", "rest"},
    }.items():
        shares = found[group]
        assert names <= set(shares)
        assert all(0 <= share <= 1 for share in shares.values())
    assert sum(found["encode_share"].values()) == pytest.approx(1, abs=0.2)


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
