"""A tiny training for tests, made of the real parts; workers of a cluster import it by name."""

import os
import signal
from functools import partial
from pathlib import Path

import numpy as np

from model.learn.clip_loss import ClipObjective
from model.learn.training import Objective, Trainer
from model.learn.training_config import TrainingConfig
from pipeline.clips.clips import ClipConfig, Clips, collate_clips
from pipeline.datasets.shards import (
    LabelledFrame,
    LabelledSequence,
    Shards,
    ShardWriter,
    encode_picture,
)
from pipeline.runtime.settings import ClusterConfig
from pipeline.training.batches import Stream, batches
from pipeline.training.config import WorkerConfig
from pipeline.training.worker import TrainingTask
from tests.tiny import tiny_tracker

CLIPS = ClipConfig(height=64, width=96, length=2, objects=8)
CONFIG = TrainingConfig(steps=6, batch=2, warmup=2, checkpoint_every=2, learning_rate=1e-3)


def write_shards(folder, val=0):
    """One video in which a bright rectangle moves, and four stills of such; more for validation."""
    writer = ShardWriter(folder, ["person"])
    random = np.random.default_rng(0)
    backdrop = random.integers(0, 90, (96, 144, 3)).astype(np.uint8)

    def picture(x, y):
        pixels = backdrop.copy()
        pixels[y : y + 40, x : x + 16] = (220, 180, 150)
        return pixels

    frames, pictures = [], {}
    for t in range(12):
        x = 10 + 8 * t
        name = f"walk/{t}.webp"
        pictures[name], factor = encode_picture(picture(x, 30), 640)
        assert factor == 1
        frames.append(LabelledFrame(name, [[x, 30, 16, 40]], [7], [0], [False]))
    whole, seen = ("whole", False), ("seen", False)
    writer.add(LabelledSequence("walk", "walk", "train", 10.0, True, *whole, frames), pictures)
    for i in range(4 + val):
        x, y = 15 + 25 * (i % 4), 10 + 9 * (i % 4)
        data, _ = encode_picture(picture(x, y), 640)
        frame = LabelledFrame(f"{i}.webp", [[x, y, 16, 40]], [0], [0], [False])
        split = "train" if i < 4 else "val"
        still = LabelledSequence(f"still-{i}", "drawn", split, 0.0, True, *seen, [frame])
        writer.add(still, {frame.file: data})
    writer.close()
    return folder


def clip_stream(shards, clips=CLIPS, seed=CONFIG.seed):
    return Stream(Clips(Shards(shards), clips, seed), collate_clips)


def clip_batches(shards, first=0, steps=CONFIG.steps, loaders=0):
    return batches(clip_stream(shards), (CONFIG.batch,), first, steps, loaders)


def new_trainer(config=CONFIG, objective=None):
    return Trainer(tiny_tracker(), objective or ClipObjective(), config, "cpu")


class Smooth(Objective):
    """A loss without kinks, where rounding would choose a side."""

    def forward(self, tracker, batch):
        inputs = (batch.images, batch.valid, batch.patches)
        encoded = tracker.encode(*(x.flatten(0, 1) for x in inputs))
        return sum(x.square().mean() for x in (*encoded.maps, encoded.dense.logits)), {}


def build(config, device, communicator, objective=ClipObjective):
    return Trainer(tiny_tracker(), objective(), config, device, communicator)


def finish(output, trainer, figures):
    Path(output, "finished").write_text(f"{trainer.step}")


ALONE = ClusterConfig(workers=0), WorkerConfig(loaders=0, device="cpu")
"""In this process."""


def clip_task(shards, output, config=CONFIG, clips=CLIPS, objective=ClipObjective, **more):
    return TrainingTask(
        config=config,
        build=partial(build, config, objective=objective),
        stream=partial(clip_stream, str(shards), clips, config.seed),
        finish=partial(finish, str(output)),
        output=str(output),
        **more,
    )


class Dying(ClipObjective):
    """Kills its own process, as the kernel would, once: at a forward pass of one worker."""

    def __init__(self, marker, rank, after):
        super().__init__()
        self.marker, self.rank, self.left = Path(marker), rank, after

    def forward(self, tracker, batch):
        self.left -= 1
        if self.communicator.rank == self.rank and self.left < 0 and not self.marker.exists():
            self.marker.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(tracker, batch)


def build_dying(config, marker, rank, after, device, communicator):
    return Trainer(tiny_tracker(), Dying(marker, rank, after), config, device, communicator)


class Exploding(ClipObjective):
    """A loss that turns NaN after some steps, on the last worker alone."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def forward(self, tracker, batch):
        loss, terms = super().forward(tracker, batch)
        self.left -= 1
        last = self.communicator.rank == self.communicator.world - 1
        return (loss * float("nan") if last and self.left < 0 else loss), terms


def build_exploding(config, after, device, communicator):
    return Trainer(tiny_tracker(), Exploding(after), config, device, communicator)
