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
from safetensors.torch import load
from torch import nn

from jobs.train_job import ClusterSettings, TrainJob
from model.communicator import Communicator
from model.learn.clip_loss import ClipObjective, clip_loss
from model.learn.training import Objective, Trainer, TrainingError
from model.learn.training_config import TrainingConfig, rate_at
from model.teach.teacher import TeacherError, TeacherSettings, load_teacher
from model.track.tracker import Tracker
from pipeline.clips.clips import Clips
from pipeline.datasets.shards import Shards
from pipeline.training.batches import batches, share
from pipeline.training.fit import fit
from pipeline.training.post import Post
from pipeline.training.run_folder import STATE, RunFolder
from tests.tiny import TINY, tiny_tracker
from tests.training_parts import (
    CLIPS,
    CONFIG,
    clip_fit,
    clip_stream,
    two_processes,
    write_shards,
)

ALONE = ClusterSettings(loaders=0, device="cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"))


def clip_batches(shards, first=0, steps=CONFIG.steps, loaders=0):
    return batches(clip_stream(shards), CONFIG.batch, first, steps, loaders)


def new_trainer(config=CONFIG, objective=None):
    return Trainer(tiny_tracker(), objective or ClipObjective(), config, "cpu")


def test_a_killed_run_goes_on_with_the_same_loss_curve(shards, tmp_path):
    whole: list[float] = []
    fit(clip_fit(shards, tmp_path / "whole"), ALONE, lambda p: whole.append(p.loss))
    assert len(whole) == CONFIG.steps

    class KilledError(Exception):
        pass

    part: list[float] = []

    def die_after_three(progress):
        part.append(progress.loss)
        if progress.step == 3:
            raise KilledError

    with pytest.raises(KilledError):
        fit(clip_fit(shards, tmp_path / "part"), ALONE, die_after_three)
    assert not (tmp_path / "part" / "finished").exists()
    # The checkpoint is that of step 2; step 3 is done again.
    fit(clip_fit(shards, tmp_path / "part"), ALONE, lambda p: part.append(p.loss))
    np.testing.assert_allclose(part[:2] + part[3:], whole, rtol=1e-5)
    assert part[2] == pytest.approx(part[3], rel=1e-5)
    assert (tmp_path / "part" / "finished").read_text() == "6"
    one, other = (new_trainer(), new_trainer())
    for trainer, name in ((one, "whole"), (other, "part")):
        trainer.resume((tmp_path / name / STATE).read_bytes(), name)
        assert trainer.step == CONFIG.steps
    for name, value in one.average.values.items():
        torch.testing.assert_close(value, other.average.values[name], rtol=1e-4, atol=1e-5)


class WithProjector(Objective):
    """Trains a projector of its own and keeps a buffer, as distillation does."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.projector = nn.Linear(TINY.semantic_dim, 3)
        self.register_buffer("pull", torch.zeros(()))

    def forward(self, tracker, batch):
        memory = tracker.encode(*(x.flatten(0, 1) for x in (batch.images, batch.valid,
                                                            batch.patches)))  # fmt: skip
        return self.projector(memory.scene).square().mean(), {"part": torch.ones(())}

    def after_backward(self, mean):
        self.pull += mean(torch.tensor(1.0 + self.communicator.rank))
        return {"pull": self.pull.clone()}


def test_an_objective_is_trained_along_and_resumed(shards):
    trainer = new_trainer(objective=WithProjector())
    before = trainer.objective.projector.weight.detach().clone()
    steps = list(trainer.run(clip_batches(shards, steps=2)))
    assert [p.terms["pull"] for p in steps] == [1, 2]
    after = trainer.objective.projector.weight.detach()
    assert not torch.equal(before, after)
    resumed = new_trainer(objective=WithProjector())
    resumed.resume(trainer.save(), "here")
    assert torch.equal(resumed.objective.projector.weight, after)
    assert resumed.objective.pull == 2
    assert not any("projector" in name for name in trainer.averaged().state_dict())
    with pytest.raises(TrainingError, match="another objective"):
        new_trainer().resume(trainer.save(), "here")


def test_two_workers_take_the_step_of_one(shards, tmp_path):
    config, clips = replace(CONFIG, steps=1, batch=4), replace(CLIPS, length=3)
    (two,) = two_processes(shards, tmp_path / "two", config, clips)
    seen = []
    fit(clip_fit(shards, tmp_path / "one", config, clips), ALONE, seen.append)
    (one,) = seen
    assert two["frames"] == one.frames == 12
    assert two["loss"] == pytest.approx(one.loss, rel=1e-4)
    assert two["terms"] == pytest.approx(one.terms, rel=1e-3, abs=1e-5)
    # After one step the optimizer's mean is a tenth of the gradient; weights would not do, as
    # AdamW takes a full step along a gradient that is nothing but rounding.
    states = [load((tmp_path / name / STATE).read_bytes()) for name in ("one", "two")]
    means = [
        torch.cat([v.flatten() for k, v in sorted(s.items()) if k.endswith("exp_avg")])
        for s in states
    ]
    assert means[0].norm() > 0.01
    assert (means[0] - means[1]).norm() < 1e-3 * means[0].norm()


def test_letters_are_kept_until_they_have_arrived():
    post = Post()
    post.put(b"1")
    name, before, letters = post.take("", 0)
    assert (before, letters) == (0, [b"1"])
    post.put(b"2")
    # The answer was lost: the driver asks as it did before.
    assert post.take("", 0)[1:] == (0, [b"1", b"2"])
    assert post.take(name, 1)[1:] == (1, [b"2"])
    assert post.take(name, 2)[1:] == (2, [])
    # One that was started anew has forgotten how far the driver was.
    again = Post()
    again.put(b"3")
    assert again.take(name, 2)[1:] == (0, [b"3"])


def test_shares_of_a_step_make_up_the_step():
    for world in (1, 2, 3):
        parts = [i for rank in range(world) for i in share(5, 6, rank, world)]
        assert parts == list(range(30, 36))
    with pytest.raises(ValueError, match="batch of 6 cannot be shared by 4 workers"):
        share(0, 6, 0, 4)


def test_the_loss_falls_on_one_batch(shards):
    batch = next(iter(clip_batches(shards)))
    config = replace(CONFIG, steps=25, warmup=1, decay=0.01)
    losses = [p.loss for p in new_trainer(config).run([batch] * 25)]
    assert np.mean(losses[-3:]) < 0.75 * np.mean(losses[:3])


def test_every_part_that_is_to_be_trained_gets_a_gradient(shards):
    tracker = tiny_tracker().train()
    # Layers that start at zero let nothing through on the first step.
    for parameter in tracker.parameters():
        if float(parameter.detach().abs().max()) == 0:
            torch.nn.init.normal_(parameter, std=0.05)
    loss, _, _ = clip_loss(tracker, next(iter(clip_batches(shards))), Communicator())
    loss.backward()
    without = [n for n, p in tracker.named_parameters() if p.grad is None]
    assert without == []


def test_a_loss_that_is_not_finite_stops_with_the_clips_named(shards):
    trainer = new_trainer()
    trainer.tracker.head.regress.bias.data.fill_(float("nan"))
    batch = next(iter(clip_batches(shards)))
    with pytest.raises(TrainingError, match=f"loss is nan at step 0.*{batch.names[0]}"):
        list(trainer.run([batch]))


class Spiked(Objective):
    """A finite loss whose gradient is not."""

    def forward(self, tracker, batch):
        return (tracker.gate.bias - tracker.gate.bias.detach()).abs().sqrt(), {}


def test_a_gradient_that_is_not_finite_leaves_the_weights_as_they_were(shards):
    trainer = new_trainer(objective=Spiked())
    before = {n: v.clone() for n, v in trainer.tracker.state_dict().items()}
    batch = next(iter(clip_batches(shards)))
    with pytest.raises(TrainingError, match=f"gradient is nan at step 0.*{batch.names[0]}"):
        list(trainer.run([batch]))
    for name, value in trainer.tracker.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_state_that_does_not_fit_is_refused_and_changes_nothing():
    trainer = new_trainer()
    state = trainer.save()
    narrow = Tracker(replace(TINY, dim=16))
    other = Trainer(narrow, ClipObjective(), CONFIG, "cpu")
    before = {n: v.clone() for n, v in narrow.state_dict().items()}
    with pytest.raises(
        TrainingError, match=r"state\.safetensors: of another model: dim is 32 there and 16"
    ):
        other.resume(state, "out/state.safetensors")
    assert all(torch.equal(v, before[n]) for n, v in narrow.state_dict().items())
    for damaged in (state[:1000], b"", b"text"):
        with pytest.raises(TrainingError, match="not a readable training state"):
            trainer.resume(damaged, "out/state.safetensors")


def test_a_state_of_another_backbone_is_refused_by_name():
    """Two that differ in padding and colours alone: every shape is the same."""
    state = new_trainer().save()
    plain = Tracker(replace(TINY, backbone="efficientnet_lite0", birth_threshold=0.1))
    other = Trainer(plain, ClipObjective(), CONFIG, "cpu")
    difference = "backbone is tf_efficientnet_lite0 there and efficientnet_lite0 here;"
    with pytest.raises(TrainingError, match=f"of another model: {difference}"):
        other.resume(state, "out/state.safetensors")


class Plain(Objective):
    """Cheap, and with many terms."""

    def forward(self, tracker, batch):
        loss = tracker.gate.bias.square().sum()
        return loss, {f"term{i}": loss.detach() for i in range(5)}


def test_a_step_waits_for_its_device_once(shards, monkeypatch):
    trainer, batch = new_trainer(objective=Plain()), next(iter(clip_batches(shards)))
    waits = []

    def counted(name, original):
        def call(tensor):
            waits.append(name)
            return original(tensor)

        return call

    for name in ("tolist", "item", "__float__", "__bool__", "__int__"):
        monkeypatch.setattr(torch.Tensor, name, counted(name, getattr(torch.Tensor, name)))
    steps = list(trainer.run([batch] * 3))
    assert waits == ["tolist"] * 3
    assert [len(step.terms) for step in steps] == [6] * 3


def test_a_state_goes_from_a_cpu_to_a_gpu_and_back(shards):
    """On a GPU weights lie channels last, and fused kernels insist on one layout for all."""

    def channels_last():
        tracker = tiny_tracker().to(memory_format=torch.channels_last)
        return Trainer(tracker, ClipObjective(), CONFIG, "cpu")

    first = new_trainer()
    list(first.run(clip_batches(shards, steps=1)))
    there = channels_last()
    there.resume(first.save(), "state")
    losses = [p.loss for p in there.run(clip_batches(shards, first=1, steps=2))]
    back = new_trainer()
    back.resume(there.save(), "state")
    losses += [p.loss for p in back.run(clip_batches(shards, first=2, steps=3))]
    wanted = [p.loss for p in first.run(clip_batches(shards, first=1, steps=3))]
    assert losses == pytest.approx(wanted, rel=1e-3)


def test_a_state_of_other_frozen_stages_is_refused(shards):
    trainer = new_trainer(replace(CONFIG, frozen_stages=0))
    list(trainer.run(clip_batches(shards, steps=1)))
    with pytest.raises(TrainingError, match="keep frozen_stages"):
        new_trainer(replace(CONFIG, frozen_stages=3)).resume(trainer.save(), "state")


def test_clip_i_is_the_same_in_every_run_and_loader(shards):
    one = list(clip_batches(shards, steps=3))
    other = list(clip_batches(shards, steps=3, loaders=1))
    later = list(clip_batches(shards, first=2, steps=3))
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


def test_views_are_degraded_at_the_size_the_camera_had(shards, monkeypatch):
    sizes = []

    def seen(clip, kind, severity, seed, start):
        sizes.append(clip.shape[1:3])
        return 255 - clip

    monkeypatch.setattr("pipeline.clips.clips.degrade", seen)
    config = replace(CLIPS, degraded=1.0, degrade_at="camera")
    clips = Clips(Shards(shards), config, seed=3, clean=True)
    items = [clips[i] for i in range(12)]
    assert max(sizes) > (CLIPS.height, CLIPS.width), "the shards' pictures are larger than that"
    for item in items:
        height, width = item["valid"][0].tolist()
        both = item["images"].int() + item["clean"].int()
        # The same view scaled alike; each is rounded twice, along rows and along columns.
        assert int((both[..., :height, :width] - 255).abs().max()) <= 2


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
        teacher=TeacherSettings(model=""),
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


def test_a_teacher_without_its_package_is_an_error_with_a_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(TeacherError, match=r"open_clip_torch.*teacher\.model="):
        load_teacher("imagenet-lite2", "package")


def test_the_command_goes_on_with_a_run_and_refuses_another(shards, tmp_path):
    def command(*more):
        settings = "clips.height=64 clips.width=96 clips.length=2 training.batch=1"
        places = [f"shards={shards}", f"output={tmp_path / 'run'}", "imagenet=", "teacher.model="]
        machine = "cluster.threads=1 cluster.loaders=0 cluster.device=cpu mlflow.enabled=false"
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


def test_a_folder_that_is_a_run_without_a_state_may_be_claimed_anew(tmp_path):
    folder = RunFolder(str(tmp_path / "run"))
    folder.claim({"a": {"b": 1}, "c": 2}, ["c"])
    folder.claim({"a": {"b": 2}, "c": 2}, ["c"])
    folder.write(STATE, b"something")
    folder.claim({"a": {"b": 2}, "c": 3}, ["c"])
    with pytest.raises(ValueError, match=r"a\.b: 2 there, 1 here"):
        folder.claim({"a": {"b": 1}, "c": 3}, ["c"])
    assert json.loads(folder.read("config.json") or b"")["a"]["b"] == 2


@pytest.mark.parametrize("workers", [-1, [0, 2], [3, 2]])
def test_numbers_of_workers_that_make_no_sense_are_refused(workers):
    values = asdict(TrainJob()) | {"cluster": {"workers": workers}}
    with pytest.raises(ValueError, match=r"cluster\.workers must be"):
        TrainJob.from_dict(values)
