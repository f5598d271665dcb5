"""Parts of a student trained alone: they learn, and the rest stays as it was."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from jobs.train import run
from jobs.train_job import TrainJob
from jobs.training_run import MlflowSettings
from model.learn.part_loss import PartObjective, train_only
from model.learn.training import Trainer
from model.teach.distillation import DistillationConfig, Distiller
from model.teach.distiller_file import distiller_path
from model.teach.teacher import load_teacher
from model.teach.teacher_statistics import measure_statistics
from model.track.checkpoint import CheckpointMetadata, checkpoint_bytes
from model.track.tracker import Tracker
from pipeline.clips.clips import Clips, collate_clips
from pipeline.datasets.shards import Shards
from pipeline.training.batches import Stream, batches
from pipeline.training.work import ClusterSettings
from tests.tiny import TINY, tiny_tracker
from tests.training_parts import CLIPS, CONFIG, clip_stream, write_shards

# Quality is learned from views degraded at the size the camera had, whose severity is known.
CAMERA = replace(CLIPS, degraded=0.8, degrade_at="camera")


# Views whose severity is known.
CAMERA = replace(CLIPS, degraded=0.8, degrade_at="camera")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.mark.parametrize("part", ["quality", "tracks"])
def test_a_part_alone_learns_one_batch(shards, part):
    stream = clip_stream(shards, replace(CAMERA, length=3))
    batch = next(iter(batches(stream, 4, 0, 1, 0)))
    tracker = tiny_tracker()
    train_only(tracker, [part])
    config = replace(CONFIG, steps=25, warmup=1, decay=0.01, learning_rate=3e-3)
    trainer = Trainer(tracker, PartObjective([part]), config, "cpu")
    losses = [p.loss for p in trainer.run([batch] * 25)]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


def test_semantics_alone_learn_one_batch_from_a_teacher(shards):
    clips = Clips(Shards(shards), replace(CLIPS, length=1, degraded=0.8), CONFIG.seed, clean=True)
    batch = next(iter(batches(Stream(clips, collate_clips), 4, 0, 1, 0)))
    teacher = load_teacher("imagenet-lite2", "package")
    features = teacher(batch.clean.flatten(0, 1), batch.valid.flatten(0, 1))
    tracker = tiny_tracker()
    train_only(tracker, ["semantics"])
    statistics = measure_statistics(teacher.info, [features])
    distiller = Distiller(
        DistillationConfig(), tracker.config.semantic_dim, teacher.info, statistics
    )
    config = replace(CONFIG, steps=25, warmup=1, decay=0.01, learning_rate=3e-3)
    trainer = Trainer(tracker, PartObjective(["semantics"], distiller, teacher), config, "cpu")
    losses = [p.loss for p in trainer.run([batch] * 25)]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


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
        clips=replace(CAMERA, length=length),
        training=replace(CONFIG, steps=12, batch=4, learning_rate=0.01, average=0.5),
        cluster=ClusterSettings(threads=1, loaders=0, device="cpu"),
        mlflow=MlflowSettings(enabled=False),
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
    with pytest.raises(ValueError, match="frames to track through"):
        replace(job, learn=("tracks",), clips=replace(CAMERA, length=1))
    with pytest.raises(ValueError, match=r"clips\.degrade_at=camera"):
        replace(job, learn=("quality",), clips=replace(CAMERA, degrade_at="canvas"))
    with pytest.raises(ValueError, match="start=FILE"):
        replace(job, start="")
    with pytest.raises(ValueError, match="parts are quality, semantics, tracks"):
        replace(job, learn=("decoder",))
