"""Distillation from a folder of videos to student weights, and what stops it."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from jobs.distill import run
from model.communicator import Communicator
from model.learn.frame_loss import DistillObjective
from model.learn.training import TrainingError, train
from model.learn.training_config import TrainingConfig
from model.net.config import SIZES
from model.teach.config import TeacherConfig
from model.teach.distillation import distiller_path, load_distiller
from model.teach.teacher import TeacherError
from model.teach.teacher_statistics import measure_statistics
from model.track.tracker import Tracker
from pipeline.runtime.settings import MlflowConfig
from pipeline.teachers.load import load_teacher
from pipeline.training.archive_frames import (
    ArchiveFrames,
    collate_frames,
    read_archive_videos,
)
from pipeline.training.batches import Stream, batches
from pipeline.training.config import CacheConfig, FrameConfig, WorkerConfig
from pipeline.training.distill_job import DistillJob
from pipeline.training.distill_parts import build_trainer
from pipeline.training.run_folder import RunFolderError
from tests.tiny import TINY
from tests.videos import write_text, write_video


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "nano", TINY)
    folder = tmp_path / "archive"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        write_video(folder / name, frames=30)
    return DistillJob(
        input=str(folder),
        output=str(tmp_path / "run"),
        imagenet="",
        frames=FrameConfig(height=64, width=96),
        training=TrainingConfig(steps=4, batch=4, warmup=1, checkpoint_every=2),
        worker=WorkerConfig(threads=1, loaders=0, device="cpu"),
        mlflow=MlflowConfig(enabled=False),
    )


def curve(job):
    losses = []
    run(job, lambda progress: losses.append((progress.step, progress.loss)))
    return losses


def test_a_student_its_projectors_and_what_they_say_of_themselves(job, tmp_path, capsys):
    write_text(tmp_path / "archive" / "broken.mp4")
    seen = []
    path = run(job, seen.append)
    assert [p.step for p in seen] == [1, 2, 3, 4] and seen[0].frames == 4
    assert {"local", "pooled", "relation", "quality"} <= set(seen[0].terms)
    assert "broken.mp4" in capsys.readouterr().out
    tracker, metadata = Tracker.load(path)
    assert metadata.teacher == "imagenet-lite2"
    assert metadata.training["videos"] == ["a.mp4", "b.mp4"]
    assert not [name for name in tracker.state_dict() if "project_dense" in name]
    distiller = load_distiller(distiller_path(path))
    assert distiller.teacher.id == "imagenet-lite2"
    assert distiller.semantic_dim == tracker.config.semantic_dim
    assert float(distiller.dense_mean.abs().sum()) > 0


def test_a_new_student_starts_with_statistics_of_the_archive(job):
    trainer, _ = trainer_and_frames(job)
    norms = [m for n, m in trainer.tracker.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    measured = [n for n in norms if int(n.num_batches_tracked)]
    assert measured and all(float(n.running_mean.abs().sum()) > 0 for n in measured)


def test_a_distillation_is_in_mlflow_with_figures_and_pictures(job, tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    training = replace(job.training, steps=10, checkpoint_every=10)
    run(
        replace(job, training=training, mlflow=MlflowConfig(True, uri, "d"), picture_every=5),
        lambda p: None,
    )
    client = MlflowClient(uri)
    (found,) = client.search_runs([client.get_experiment_by_name("d").experiment_id])
    assert found.info.status == "FINISHED"
    assert found.data.params["teacher.model"] == "imagenet-lite2"
    expected = {"local", "pooled", "relation", "quality", "images_per_second"}
    assert expected | {"gate_mean", "quality_mean"} <= set(found.data.metrics)
    pictures = sorted(artifact.path for artifact in client.list_artifacts(found.info.run_id))
    assert pictures == ["snapshot-0000005.png", "snapshot-0000010.png"]
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 11))


def test_a_run_that_stopped_goes_on_with_the_same_curve_and_no_other(job, tmp_path, monkeypatch):
    whole = curve(job)
    again = replace(job, output=str(tmp_path / "again"))

    class KilledError(Exception):
        pass

    def die(progress):
        if progress.step == 3:
            raise KilledError

    with pytest.raises(KilledError):
        run(again, die)
    rest = curve(again)
    assert [step for step, _ in rest] == [3, 4]
    np.testing.assert_allclose([x for _, x in rest], [x for _, x in whole[2:]], rtol=1e-5)
    with pytest.raises(RunFolderError, match=r"distillation\.local: 1\.0 in the folder, 2\.0 now"):
        curve(replace(again, distillation=replace(job.distillation, local=2.0)))


def test_a_cache_serves_instead_of_the_teacher(job, tmp_path, monkeypatch):
    pooled = replace(
        job,
        frames=replace(job.frames, pool=8),
        cache=CacheConfig(path=str(tmp_path / "cache"), dtype="float32"),
    )
    from_cache = curve(pooled)
    live = replace(pooled, output=str(tmp_path / "live"), cache=CacheConfig())
    # Statistics of the cache are of its pool, the live ones of as many frames as it takes.
    statistics = (tmp_path / "cache" / "statistics.json").read_bytes()
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "statistics.json").write_bytes(statistics)
    np.testing.assert_allclose([x for _, x in curve(live)], [x for _, x in from_cache], rtol=1e-3)

    def nobody(*arguments):
        raise AssertionError("the teacher was asked")

    for module in (
        "pipeline.teachers.load",
        "pipeline.training.distill_parts",
        "pipeline.training.make_features",
    ):
        monkeypatch.setattr(f"{module}.load_teacher", nobody)
    assert curve(replace(pooled, output=str(tmp_path / "again"))) == from_cache
    with pytest.raises(ValueError, match=r"frames\.pool=N"):
        replace(job, cache=pooled.cache)


def trainer_and_frames(job):
    videos, _ = read_archive_videos(job.input, job.output, 2)
    frames = ArchiveFrames(videos, job.frames, job.training.seed)
    teacher = load_teacher(job.teacher)
    first = collate_frames([frames[i] for i in range(4)])
    statistics = measure_statistics(teacher.info, [teacher(first.clean, first.valid)])
    device = torch.device("cpu")
    return build_trainer(job, frames, teacher.info, statistics, device, Communicator()), frames


def test_the_loss_falls_and_the_projectors_are_trained_but_not_the_teacher(job):
    job = replace(job, training=replace(job.training, steps=30, learning_rate=3e-3))
    trainer, frames = trainer_and_frames(job)
    assert isinstance(trainer.objective, DistillObjective)
    trained = dict(trainer.objective.named_parameters())
    assert set(trained) == {
        f"distiller.project_{x}.{y}" for x in ("dense", "pooled") for y in ("weight", "bias")
    }
    batch = next(batches(Stream(frames, collate_frames), (4,), 0, 1, 0))
    losses = []
    train(trainer, [batch] * 30, lambda t: None, lambda p: losses.append(p.loss))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_a_loss_that_is_no_number_names_the_videos(job):
    trainer, frames = trainer_and_frames(job)
    trainer.objective.distiller.project_dense.weight.data.fill_(float("nan"))
    source = batches(Stream(frames, collate_frames), (4,), 0, 4, 0)
    with pytest.raises(TrainingError, match=r"loss is nan at step 0 on clips .*\.mp4"):
        train(trainer, source, lambda t: None, lambda p: None)


def test_a_teacher_that_cannot_be_had_stops_the_job_before_it_starts(job):
    with pytest.raises(TeacherError, match="no such model"):
        run(replace(job, teacher=TeacherConfig("ViT-Z-1", "openai")), pytest.fail)


def test_the_command_says_what_is_wrong(warm, tmp_path):
    (tmp_path / "empty").mkdir()
    done = warm.run("jobs.distill", [f"input={tmp_path / 'empty'}", f"output={tmp_path / 'out'}"])
    assert done.returncode == 1 and "no video in" in done.stderr
    assert not (tmp_path / "out").exists()


def test_paths_are_whole_where_workers_run_elsewhere(job, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pt").write_bytes(b"")
    given = replace(
        job,
        output="run",
        teacher=TeacherConfig("ViT-B-16", "weights.pt"),
        frames=replace(job.frames, pool=4),
        cache=CacheConfig(path="s3://bucket/cache"),
    )
    found = given.located()
    assert found.output == str(tmp_path / "run")
    assert found.teacher == TeacherConfig("ViT-B-16", str(tmp_path / "weights.pt"))
    assert found.cache.path == "s3://bucket/cache"
    assert json.dumps(asdict(found))


def test_the_rate_is_frames_over_seconds(job, tmp_path, capsys):
    from jobs.distill_rate import main

    settings = ["compare=[0]", "steps=5", "batch=2", "loaders=0"]
    assert main([f"input={job.input}", f"output={tmp_path / 'rate'}", *settings]) == 0
    found = json.loads((tmp_path / "rate" / "rate.json").read_text())
    assert found["images_per_second"]["0"] > 0
    assert "1.00" in capsys.readouterr().out
