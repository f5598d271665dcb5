"""The speed kit: made here, run on a machine that has nothing else."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

from jobs import gpu_kit
from pipeline.kit.gpu_run import main as run_kit
from tests.jobs.test_kit_job import _BARE
from tests.videos import write_text, write_video


def make(capsys, **settings):
    try:
        code = gpu_kit.main([f"{key}={value}" for key, value in settings.items()])
    except SystemExit as stopped:
        code = stopped.code
    printed = capsys.readouterr()
    return code, printed.out + printed.err


SMALL = {"frames": 6, "window": 2, "rows": "[1,2]", "seconds": 0.05, "device": "cpu"}


@pytest.mark.slow
def test_the_five_minutes_on_a_cpu(tmp_path, weights, capsys):
    video = write_video(tmp_path / "v.mp4", frames=12)
    code, said = make(capsys, video=video, output=tmp_path / "kit", weights=weights, **SMALL)
    assert code == 0 and "run.py --minutes 4.5" in said, said
    there, out = tmp_path / "elsewhere" / "kit", tmp_path / "out"
    there.parent.mkdir()
    shutil.move(tmp_path / "kit", there)
    done = subprocess.run(
        [sys.executable, "-I", "-c", _BARE, str(there), "--minutes", "4"],
        capture_output=True,
        text=True,
        cwd="/",
        env={"OUT": str(out), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in out.iterdir()] == ["gpu-speed.json"]
    assert {path.name for path in there.iterdir()} == {"part-0"}, "nothing is left behind"
    figures = json.loads((out / "gpu-speed.json").read_text())
    measured = {(rate["precision"], rate["rows"]) for rate in figures["rates"]}
    assert measured == {(p, n) for p in ("fp32", "tf32", "bf16") for n in (1, 2)}
    assert all(rate["frames_per_second"] > 0 for rate in figures["rates"])
    assert [found["gpu_busy"] for found in figures["streams"]] == [None, None]
    for name in ("encode", "step"):
        part = figures["roofline"][name]
        assert part["gflops_a_frame"] > 0 and part["mbytes_a_frame"] > 0
        assert part["share"] == pytest.approx(part["least_ms"] / part["taken_ms"])
    exact = figures["agreement"]["fp32"]
    for pair in exact.values():
        assert pair["same_ids"] == 1 and pair["boxes"] > 20 and pair["boxes_px"] < 0.05
    assert figures["decode"]["one_core"] > 0 and figures["not_measured"] == []
    assert "roofline of encode" in done.stdout and "GPU busy not measured" in done.stdout

    # With too little time it says what is missing, or that nothing was measured.
    done = subprocess.run(
        [sys.executable, "-I", "-c", _BARE, str(there), "--minutes", "0.0001"],
        capture_output=True,
        text=True,
        cwd="/",
        env={"OUT": str(tmp_path / "short"), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 1 and "no batch could be measured" in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_kit_for_a_gpu_says_so_where_there_is_none(tmp_path, weights, capsys):
    video = write_video(tmp_path / "v.mp4", frames=3)
    settings = SMALL | {"device": "cuda"}
    code, said = make(capsys, video=video, output=tmp_path / "kit", weights=weights, **settings)
    assert code == 0, said
    assert run_kit([], tmp_path / "kit", 0.0) == 1
    assert "finds no GPU" in capsys.readouterr().err


def test_what_cannot_be_a_kit_is_refused(tmp_path, weights, capsys):
    code, said = make(capsys, video=tmp_path, output=tmp_path / "kit", weights=weights, **SMALL)
    assert code == 1 and "0 videos found; give one file" in said.replace("\n", " ")
    broken = write_text(tmp_path / "text.mp4")
    code, said = make(capsys, video=broken, output=tmp_path / "kit", weights=weights, **SMALL)
    assert code == 1 and "not a video" in said.replace("\n", " ")
    assert not (tmp_path / "kit").exists()
    code, said = make(capsys, video=broken, rows="[]")
    assert code == 2 and "rows" in said
