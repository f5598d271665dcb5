"""Training on a tiny student and tiny shards: it learns, and a killed run goes on as if not."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.train_job import ClusterSettings, TrainJob
from model.clip_loss import clip_loss
from model.training import Trainer, TrainingConfig, TrainingError, rate_at, train
from pipeline.clips import ClipConfig, Clips, clip_batches
from pipeline.shards import LabelledFrame, LabelledSequence, Shards, ShardWriter, encode_picture
from tests.tiny import TINY, tiny_tracker

CLIPS = ClipConfig(height=64, width=96, length=2, objects=8)
CONFIG = TrainingConfig(steps=6, batch=2, warmup=2, checkpoint_every=2, learning_rate=1e-3)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """One video in which a bright rectangle moves, and four stills of such."""
    folder = tmp_path_factory.mktemp("shards")
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
    writer.add(LabelledSequence("walk", 10.0, True, frames), pictures)
    for i in range(4):
        x, y = 15 + 25 * i, 10 + 9 * i
        data, _ = encode_picture(picture(x, y), 640)
        frame = LabelledFrame(f"{i}.webp", [[x, y, 16, 40]], [0], [0], [False])
        writer.add(LabelledSequence(f"still-{i}", 0.0, True, [frame]), {frame.file: data})
    writer.close()
    return folder


def batches(shards, first=0, steps=CONFIG.steps, workers=0):
    return clip_batches(
        Clips(Shards(shards), CLIPS, CONFIG.seed), CONFIG.batch, first, steps, workers
    )


def new_trainer(config=CONFIG):
    return Trainer(tiny_tracker(), config, "cpu")


def test_a_killed_run_goes_on_with_the_same_loss_curve(shards, tmp_path):
    whole: list[float] = []
    train(new_trainer(), batches(shards), tmp_path / "whole", lambda p: whole.append(p.loss))
    assert len(whole) == CONFIG.steps

    class KilledError(Exception):
        pass

    part: list[float] = []

    def die_after_three(progress):
        part.append(progress.loss)
        if progress.step == 3:
            raise KilledError

    with pytest.raises(KilledError):
        train(new_trainer(), batches(shards), tmp_path / "part", die_after_three)
    resumed = new_trainer()
    resumed.resume(tmp_path / "part" / "state.safetensors")
    assert resumed.step == 2  # the checkpoint; step 3 is done again
    train(resumed, batches(shards, first=2), tmp_path / "part", lambda p: part.append(p.loss))
    np.testing.assert_allclose(part[:2] + part[3:], whole, rtol=1e-5)
    assert part[2] == pytest.approx(part[3], rel=1e-5)
    one, other = (new_trainer(), new_trainer())
    one.resume(tmp_path / "whole" / "state.safetensors")
    other.resume(tmp_path / "part" / "state.safetensors")
    for name, value in one.average.items():
        torch.testing.assert_close(value, other.average[name], rtol=1e-4, atol=1e-5)


def test_the_loss_falls_on_one_batch(shards):
    batch = next(iter(batches(shards)))
    config = replace(CONFIG, steps=25, warmup=1, decay=0.01)
    losses = [p.loss for p in new_trainer(config).run([batch] * 25)]
    assert np.mean(losses[-3:]) < 0.75 * np.mean(losses[:3])


def test_every_part_that_is_to_be_trained_gets_a_gradient(shards):
    tracker = tiny_tracker().train()
    # Layers that start at zero let nothing through on the first step.
    for parameter in tracker.parameters():
        if float(parameter.detach().abs().max()) == 0:
            torch.nn.init.normal_(parameter, std=0.05)
    loss, terms = clip_loss(tracker, next(iter(batches(shards))), torch.Generator())
    loss.backward()
    assert set(terms) == {"dense_class", "dense_giou", "class", "l1", "giou", "quality"}
    without = [n for n, p in tracker.named_parameters() if p.grad is None]
    assert without == []


def test_frames_without_objects_cost_only_background(shards):
    batch = next(iter(batches(shards)))
    empty = replace(batch, ids=torch.full_like(batch.ids, -1))
    loss, terms = clip_loss(tiny_tracker().train(), empty, torch.Generator())
    assert torch.isfinite(loss) and terms["l1"] == terms["giou"] == terms["dense_giou"] == 0


def test_proposals_only_leaves_the_decoder_alone(shards):
    trainer = new_trainer(replace(CONFIG, proposals_only=True))
    before = {n: p.clone() for n, p in trainer.tracker.decoder.named_parameters()}
    list(trainer.run(list(batches(shards))[:2]))
    for name, parameter in trainer.tracker.decoder.named_parameters():
        if not name.startswith(("semantic", "scene")):
            assert torch.equal(parameter, before[name]), name


def test_a_loss_that_is_not_finite_stops_with_the_clips_named(shards):
    trainer = new_trainer()
    trainer.tracker.head.regress.bias.data.fill_(float("nan"))
    batch = next(iter(batches(shards)))
    with pytest.raises(TrainingError, match=batch.names[0]):
        list(trainer.run([batch]))


def test_a_state_of_another_model_is_refused(shards, tmp_path):
    trainer = new_trainer()
    trainer.save(tmp_path / "state.safetensors")
    from model.tracker import Tracker

    other = Trainer(Tracker(replace(TINY, dim=16)), CONFIG, "cpu")
    with pytest.raises(TrainingError, match="another model"):
        other.resume(tmp_path / "state.safetensors")


def test_clip_i_is_the_same_in_every_run_and_loader(shards):
    one = list(batches(shards, steps=3))
    other = list(batches(shards, steps=3, workers=1))
    later = list(batches(shards, first=2, steps=3))
    for a, b in [*zip(one, other, strict=True), (one[2], later[0])]:
        assert a.names == b.names and torch.equal(a.images, b.images)
        assert torch.equal(a.boxes, b.boxes) and torch.equal(a.severity, b.severity)


def test_boxes_follow_the_rectangle_through_crops_and_flips(shards):
    clips = Clips(Shards(shards), replace(CLIPS, degraded=0.0, length=3), seed=5)
    checked = 0
    for index in range(40):
        clip = clips[index]
        for t in range(3):
            for g in range(CLIPS.objects):
                if clip["ids"][t, g] < 0 or clip["ignore"][t, g]:
                    continue
                x1, y1, x2, y2 = (int(v) for v in clip["boxes"][t, g].round())
                inner = clip["images"][t, :, y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].float()
                assert inner.numel() == 0 or float(inner.std(dim=(1, 2)).mean()) < 25
                checked += inner.numel() > 0
    assert checked > 30


def test_the_rate_rises_stays_and_falls():
    config = TrainingConfig(steps=100, warmup=10, decay=0.2)
    rates = [rate_at(step, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9:81] == [1.0] * 72
    assert all(a > b for a, b in pairwise(rates[80:])) and rates[-1] < 0.1


def test_training_needs_only_torch_and_its_friends(shards, tmp_path):
    """The bare path, in a process where everything else refuses to be imported."""
    job = TrainJob(
        shards=str(shards),
        output=str(tmp_path / "run"),
        imagenet="",
        clips=replace(CLIPS, length=2),
        training=replace(CONFIG, steps=1, batch=1),
        cluster=ClusterSettings(threads=1, loaders=0, device="cpu"),
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
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "vsdmot-nano.safetensors").stat().st_size < 25_000_000


def test_the_command_goes_on_with_a_run_and_refuses_another(shards, tmp_path):
    def command(*more):
        settings = "clips.height=64 clips.width=96 clips.length=2 training.batch=1 imagenet="
        places = [f"shards={shards}", f"output={tmp_path / 'run'}"]
        machine = "cluster.threads=1 cluster.loaders=0 cluster.device=cpu"
        words = [*places, *settings.split(), *machine.split(), *more]
        return subprocess.run(
            [sys.executable, "-m", "jobs.train", *words],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[1],
        )

    for steps in (1, 2):
        done = command(f"training.steps={steps}")
        assert done.returncode == 0, done.stderr
    log = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2]
    refused = command("training.steps=3", "training.learning_rate=0.1")
    assert refused.returncode == 1
    assert "training.learning_rate: 0.0004 there, 0.1 here" in refused.stderr
