"""Parts of a student trained alone learn one batch."""

from dataclasses import replace

import numpy as np
import pytest

from model.learn.part_loss import PartObjective, train_only
from model.learn.training import Trainer
from model.teach.config import DistillationConfig
from model.teach.distillation import Distiller
from model.teach.teacher_statistics import measure_statistics
from model.teach.tower import load_tower
from pipeline.clips.clips import Clips, collate_clips
from pipeline.datasets.shards import Shards
from pipeline.training.batches import Stream, batches
from tests.tiny import tiny_tracker
from tests.training_parts import CLIPS, CONFIG, clip_stream

# Quality is learned from views degraded at the size the camera had, whose severity is known.
CAMERA = replace(CLIPS, degraded=0.8, degrade_at="camera")


@pytest.mark.parametrize("part", ["quality", "tracks"])
def test_a_part_alone_learns_one_batch(shards, part):
    stream = clip_stream(shards, replace(CAMERA, length=3))
    batch = next(iter(batches(stream, (4,), 0, 1, 0)))
    tracker = tiny_tracker()
    train_only(tracker, [part])
    config = replace(CONFIG, steps=25, warmup=1, decay=0.01, learning_rate=3e-3)
    trainer = Trainer(tracker, PartObjective([part]), config, "cpu")
    losses = [p.loss for p in trainer.run([batch] * 25)]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


def test_semantics_alone_learn_one_batch_from_a_teacher(shards):
    config = replace(CLIPS, length=1, degraded=0.8)
    clips = Clips(Shards(shards), config, CONFIG.seed, clean_scale=1)
    batch = next(iter(batches(Stream(clips, collate_clips), (4,), 0, 1, 0)))
    teacher = load_tower("imagenet-lite2", "package")
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
