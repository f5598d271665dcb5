"""The training job from shards to weights that say what they saw and what they score."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from typing import get_args

import pytest
import torch

from jobs.train import main, run
from model.learn.part_loss import PARTS
from model.learn.training import TrainingError
from model.learn.training_config import TrainingConfig
from model.net.config import SIZES, Size
from model.settings import build
from model.teach.config import TeacherConfig
from model.teach.distillation import distiller_path
from model.track.checkpoint import CheckpointMetadata, checkpoint_bytes, read_metadata
from model.track.tracker import Tracker
from pipeline.clips.config import SinglesConfig
from pipeline.datasets.shards import ShardError
from pipeline.runtime.settings import MlflowConfig
from pipeline.training.config import Part, WorkerConfig
from pipeline.training.distill_job import DistillJob
from pipeline.training.train_job import TrainJob
from tests import ROOT
from tests.tiny import TINY
from tests.training_parts import (
    CLIPS,
    CONFIG,
    write_shards,
)

# Quality is learned from views degraded at the size the camera had, whose severity is known.
CAMERA = replace(CLIPS, degraded=0.8, degrade_at="camera")


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "nano", replace(TINY, size="nano"))
    return TrainJob(
        shards=str(write_shards(tmp_path / "shards", val=3)),
        output=str(tmp_path / "run"),
        imagenet="",
        clips=replace(CLIPS, length=1),
        training=replace(CONFIG, steps=2, batch=4, batch_statistics=True, score=True),
        worker=WorkerConfig(threads=1, loaders=0, device="cpu"),
        mlflow=MlflowConfig(enabled=False),
    )


def test_weights_say_what_they_saw_and_what_they_score(job, tmp_path, capsys):
    first = run(job, lambda p: None)
    metadata = read_metadata(first)
    assert metadata.training["frames"] == 8 and metadata.training["steps"] == 2
    assert metadata.training["sequences"] == 5 and metadata.training["videos"] == ["walk"]
    assert {"ap50", "pictures"} <= set(metadata.metrics)
    assert metadata.metrics["pictures"] == 3 and 0 <= metadata.metrics["ap50"] <= 100
    assert "pictures: 3" in capsys.readouterr().out
    lines = [json.loads(x) for x in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[-1] == {"step": 2, "frames_seen": 8, "score": dict(metadata.metrics)}
    assert [line["frames_seen"] for line in lines] == [4, 8, 8]
    # A run of minutes from these weights: what they had seen counts too.
    training = replace(job.training, steps=0, minutes=0.01, score=False)
    more = replace(job, start=first, output=str(tmp_path / "more"), training=training)
    seen = []
    metadata = read_metadata(run(more, seen.append))
    assert seen[-1].budget_used == 1
    assert metadata.training["frames"] == 8 + seen[-1].frames_seen
    assert metadata.training["started_from"]["frames"] == 8
    assert metadata.training["minutes"] >= 0.01 and not metadata.metrics
    with pytest.raises(TrainingError, match="its budget is used up"):
        run(more, pytest.fail)


def test_single_frames_and_clips_in_turn(job):
    clips = replace(CLIPS, length=2)
    singles = SinglesConfig(steps=2, batch=4, clips=replace(CLIPS, length=1))
    training = replace(job.training, steps=3, batch=2, score=False)
    seen = []
    first = run(replace(job, clips=clips, singles=singles, training=training), seen.append)
    assert [p.frames for p in seen] == [4, 4, 4]
    assert ["track_giou" in p.terms for p in seen] == [False, False, True]
    metadata = read_metadata(first)
    assert metadata.training["frames"] == 12
    assert metadata.training["singles"]["steps"] == 2


def test_a_score_needs_stills_that_nothing_is_trained_on(job, tmp_path):
    shards = str(write_shards(tmp_path / "without", val=0))
    with pytest.raises(ShardError, match="no still of split val"):
        run(replace(job, shards=shards), pytest.fail)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=r"training\.score needs labelled stills"):
        DistillJob(input="videos", training=TrainingConfig(score=True))


def test_a_resolved_config_that_is_not_there_is_an_error_that_says_what_to_give(tmp_path, capsys):
    broken = tmp_path / "config.json"
    broken.write_text("{")
    for argv in ([], [str(tmp_path / "none.json")], [str(broken)]):
        assert main(["--resolved", *argv]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and "--resolved OUTPUT/config.json" in said


def test_training_needs_only_torch_and_its_friends(shards, tmp_path):
    """The bare path, in a process where everything else refuses to be imported."""
    job = TrainJob(
        shards=str(shards),
        output=str(tmp_path / "run"),
        imagenet="",
        clips=replace(CLIPS, length=2),
        training=replace(CONFIG, steps=1, batch=1),
        worker=WorkerConfig(threads=1, loaders=0, device="cpu"),
    )
    resolved = tmp_path / "job.json"
    resolved.write_text(json.dumps(asdict(job)))
    program = f"""
import sys
for name in ("ray", "av", "decord", "pyarrow", "fsspec", "s3fs", "mlflow", "motmetrics",
             "pydantic", "omegaconf", "rich", "open_clip", "scipy", "pandas", "supervision"):
    sys.modules[name] = None
from jobs.train import main
sys.exit(main(["--resolved", {str(resolved)!r}]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "vsdmot-nano.safetensors").stat().st_size < 25_000_000


def test_the_command_goes_on_with_a_run_and_refuses_another(warm, shards, tmp_path):
    def command(*more):
        settings = "clips.height=64 clips.width=96 clips.length=2 training.batch=1"
        places = [f"shards={shards}", f"output={tmp_path / 'run'}", "imagenet="]
        machine = "worker.threads=1 worker.loaders=0 worker.device=cpu mlflow.enabled=false"
        words = [*places, *settings.split(), *machine.split(), *more]
        return warm.run("jobs.train", words)

    for steps in (1, 2):
        done = command(f"training.steps={steps}")
        assert done.returncode == 0, done.stderr
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2]
    refused = command("training.steps=3", "training.learning_rate=0.1")
    assert refused.returncode == 1
    assert "training.learning_rate: 0.0004 in the folder, 0.1 now" in refused.stderr


@pytest.mark.parametrize("workers", [-1, [0, 2], [3, 2], [1, 2, 3], None])
def test_numbers_of_workers_that_make_no_sense_are_refused(workers):
    values = asdict(TrainJob()) | {"cluster": {"workers": workers}}
    with pytest.raises(ValueError, match=r"cluster\.workers: .* was given"):
        build(TrainJob, values)


def test_the_parts_that_can_be_trained_alone_are_those_that_the_settings_allow():
    assert set(get_args(Part)) == PARTS.keys()
    assert set(get_args(Size)) == SIZES.keys()


@pytest.mark.parametrize(
    ("learn", "length", "modules"),
    [
        (("quality", "semantics"), 1, {"quality", "semantics"}),
        (("tracks",), 3, {"transport", "track_decoder", "memory"}),
        (("quality", "tracks"), 2, {"quality", "transport", "track_decoder", "memory"}),
    ],
)
def test_parts_alone_leave_the_rest_as_it_was(shards, tmp_path, learn, length, modules):
    start = tmp_path / "start.safetensors"
    before = Tracker(replace(TINY, size="nano"))
    start.write_bytes(checkpoint_bytes(before.state_dict(), CheckpointMetadata(before.config)))
    job = TrainJob(
        shards=str(shards),
        output=str(tmp_path / "run"),
        start=str(start),
        learn=learn,
        teacher=TeacherConfig(),
        clips=replace(CAMERA, length=length),
        training=replace(CONFIG, steps=12, batch=4, learning_rate=0.01, average=0.5),
        worker=WorkerConfig(threads=1, loaders=0, device="cpu"),
        mlflow=MlflowConfig(enabled=False),
    )
    seen = []
    path = run(job, seen.append)
    after, _ = Tracker.load(path)
    changed = {
        name.split(".")[0]
        for name, value in after.state_dict().items()
        if not torch.equal(value, before.state_dict()[name])
    }
    assert changed == modules
    assert distiller_path(path).is_file() == ("semantics" in learn)
    assert len(seen) == 12
    if "quality" in learn:
        with pytest.raises(ValueError, match=r"learn=\[quality\].*clips\.degrade_at=camera"):
            replace(job, clips=CLIPS)
    with pytest.raises(ValueError, match="clips of several frames"):
        replace(job, learn=("tracks",), clips=replace(CAMERA, length=1))
    with pytest.raises(ValueError, match=r"clips\.degrade_at=camera"):
        replace(job, learn=("quality",), clips=replace(CAMERA, degrade_at="canvas"))
    with pytest.raises(ValueError, match="start=FILE"):
        replace(job, start="")
    with pytest.raises(ValueError, match="one of quality, semantics, tracks"):
        replace(job, learn=("decoder",))


def test_a_teacher_is_asked_for_by_name_where_there_are_labels():
    assert not TrainJob().taught
    assert TrainJob(teacher=TeacherConfig()).taught
    assert DistillJob(input="videos").teacher.model == "imagenet-lite2"
