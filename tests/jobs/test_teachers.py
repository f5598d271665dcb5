"""Trainings with each kind of teacher, from the command to the weights, and what stops them."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from jobs import distill, train
from model.learn.training_config import TrainingConfig
from model.net.config import SIZES
from model.teach.config import TeacherConfig
from model.teach.distillation import distiller_path, load_distiller
from model.teach.teacher import TeacherError
from model.track.checkpoint import CheckpointMetadata, read_metadata, save_tracker
from pipeline.clips.config import ClipConfig
from pipeline.runtime.settings import MlflowConfig
from pipeline.training.config import CacheConfig, FrameConfig, WorkerConfig
from pipeline.training.distill_job import DistillJob
from pipeline.training.run_folder import RunFolderError
from pipeline.training.train_job import TrainJob
from tests.pipeline.teachers.networks import tiny_reid, tiny_yolox
from tests.tiny import TINY, tiny_tracker
from tests.training_parts import CLIPS
from tests.videos import write_video

MACHINE = {
    "imagenet": "",
    "training": TrainingConfig(steps=4, batch=2, warmup=1, checkpoint_every=2, learning_rate=1e-3),
    "worker": WorkerConfig(threads=1, loaders=0, device="cpu"),
    "mlflow": MlflowConfig(enabled=False),
}


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Weights of a student to start from, and to learn from."""
    config = replace(TINY, size="nano")
    monkeypatch.setitem(SIZES, "nano", config)
    tracker = tiny_tracker(lively=True)
    tracker.config = config
    save_tracker(tmp_path / "start.safetensors", tracker, CheckpointMetadata(model=config))
    return str(tmp_path / "start.safetensors")


@pytest.fixture
def job(start, shards, tmp_path):
    clips = replace(CLIPS, length=1, degraded=0.8)
    places = {"shards": str(shards), "output": str(tmp_path / "run"), "start": start}
    return TrainJob(**places, clips=clips, teacher=TeacherConfig("self", ""), **MACHINE)


@pytest.fixture
def unlabelled(start, tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    write_video(folder / "a.mp4", frames=30)
    return DistillJob(
        input=str(folder),
        output=str(tmp_path / "distilled"),
        start=start,
        teacher=TeacherConfig("self", ""),
        frames=FrameConfig(height=64, width=96),
        **MACHINE,
    )


def curve(module, job):
    losses = []
    module.run(job, lambda progress: losses.append(progress.loss))
    return losses


class KilledError(Exception):
    pass


def stopped(module, job, step):
    """Run a job up to a step, as if it were killed then."""

    def die(progress):
        if progress.step == step:
            raise KilledError

    with pytest.raises(KilledError):
        module.run(job, die)


@pytest.mark.parametrize(("kind", "scale"), [("train", 1.5), ("distill", 1.0)])
def test_a_student_learns_from_its_own_average_and_goes_on_alike(
    kind, scale, job, unlabelled, tmp_path
):
    module, given = (train, job) if kind == "train" else (distill, unlabelled)
    given = replace(given, teacher=TeacherConfig("self", "", scale))
    whole = curve(module, given)
    again = replace(given, output=str(tmp_path / "again"))
    stopped(module, again, 3)
    np.testing.assert_allclose(curve(module, again), whole[2:], rtol=1e-4)
    weights = f"{given.output}/vsdmot-nano.safetensors"
    metadata = read_metadata(weights)
    assert metadata.teacher == ("self" if scale == 1 else "self@1.5")
    assert "average of the student's weights" in metadata.training["teacher_licence"]
    teacher = load_distiller(distiller_path(weights)).teacher
    assert (teacher.id, teacher.levels) == (metadata.teacher, (TINY.dim,) * 3)
    line = json.loads((tmp_path / "again" / "log.jsonl").read_text().splitlines()[-1])
    assert {"local", "pooled", "relation"} <= line.keys() | line.get("terms", {}).keys()


def test_the_average_moves_while_it_teaches(job):
    """With a fixed copy of the start as teacher, the same training has other losses."""
    fixed = replace(job, output=f"{job.output}-fixed", teacher=TeacherConfig("student", job.start))
    moving, still = curve(train, job), curve(train, fixed)
    assert moving[0] == pytest.approx(still[0], rel=1e-5)
    assert moving[-1] != pytest.approx(still[-1], rel=1e-6)


def test_another_file_under_the_same_name_is_another_teacher(job, start, tmp_path):
    teacher = shutil.copy(start, tmp_path / "teacher.safetensors")
    job = replace(job, teacher=TeacherConfig("student", str(teacher)))
    stopped(train, job, 3)
    config = replace(TINY, size="nano")
    save_tracker(teacher, tiny_tracker(seed=5), CheckpointMetadata(model=config))
    with pytest.raises(RunFolderError, match=r"with the teacher student-nano/\w+, now it is"):
        train.run(job, pytest.fail)
    with pytest.raises(RunFolderError, match=r"teacher\.scale: 1\.0 in the folder, 1\.5 now"):
        train.run(replace(job, teacher=replace(job.teacher, scale=1.5)), pytest.fail)
    shutil.copy(start, teacher)
    assert len(curve(train, job)) == 2


def test_a_detector_teaches_labelled_and_unlabelled_frames(job, unlabelled, tmp_path):
    pytest.importorskip("onnx")
    path, _ = tiny_yolox(tmp_path / "tiny.onnx")
    teacher = TeacherConfig("yolox", str(path))
    assert len(curve(train, replace(job, teacher=teacher))) == 4
    cached = replace(
        unlabelled,
        teacher=teacher,
        frames=replace(unlabelled.frames, pool=4),
        cache=CacheConfig(path=str(tmp_path / "cache"), dtype="float32"),
    )
    assert len(curve(distill, cached)) == 4
    found = json.loads((tmp_path / "cache" / "cache.json").read_text())["teacher"]
    assert found["id"].startswith("yolox/") and found["levels"] == [4, 6, 8]
    assert "Apache-2.0" in found["licence"]


def test_identities_are_taught_where_there_are_labels(job, unlabelled, tmp_path):
    pytest.importorskip("onnx")
    teacher = TeacherConfig("reid", str(tiny_reid(tmp_path / "reid.onnx")))
    taught = replace(job, teacher=teacher)
    seen = []
    weights = train.run(taught, seen.append)
    assert all({"identity", "distill_share"} <= p.terms.keys() for p in seen)
    metadata = read_metadata(weights)
    assert metadata.teacher.startswith("reid/") and metadata.training["teacher_licence"]
    with pytest.raises(ValueError, match=r"vsdmot distill has no labels"):
        replace(unlabelled, teacher=teacher)
    with pytest.raises(ValueError, match=r"leave learn out"):
        replace(taught, learn=("semantics",))


def test_what_cannot_teach_stops_the_job_before_it_writes(job, unlabelled, tmp_path):
    for module, given in ((train, job), (distill, unlabelled)):
        wrong = replace(given, teacher=TeacherConfig("yolox", str(tmp_path / "none.onnx")))
        with pytest.raises(TeacherError, match=r"none\.onnx is no file"):
            module.run(wrong, pytest.fail)
        with pytest.raises(TeacherError, match="self has no weights of its own"):
            module.run(replace(given, teacher=TeacherConfig("self", given.start)), pytest.fail)
    assert not (tmp_path / "run").exists() and not (tmp_path / "distilled").exists()
    with pytest.raises(ValueError, match=r"cache\.path: teacher\.model=self changes in each step"):
        replace(
            unlabelled,
            frames=replace(unlabelled.frames, pool=4),
            cache=CacheConfig(path=str(tmp_path / "cache")),
        )
    with pytest.raises(ValueError, match=r"height: .*a multiple of 32"):
        ClipConfig(height=250)
