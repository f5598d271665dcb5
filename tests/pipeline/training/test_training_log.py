"""The log of a training: its file, MLflow, and snapshots of the tracker."""

import io
import json
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from model.learn.clip_loss import ClipObjective
from model.learn.frame_loss import FrameBatch
from model.learn.training import Progress, Trainer
from pipeline.training.batches import batches
from pipeline.training.fit import fit
from pipeline.training.log import LOG, TrainingLog, open_mlflow
from pipeline.training.run_folder import RECENT, RunFolder
from pipeline.training.snapshot import SnapshotMaker, rank_correlation, semantic_colours
from tests.tiny import tiny_inputs, tiny_tracker
from tests.training_parts import ALONE, CONFIG, clip_stream, clip_task


def progress(step, loss=1.0):
    return Progress(
        step=step,
        loss=loss,
        terms={"giou": 0.5},
        learning_rate=1e-3,
        frames=4,
        seconds=0.5,
        data_seconds=0.1,
    )


def logged(folder):
    return [json.loads(line)["step"] for line in (folder.read(LOG) or b"").splitlines()]


@pytest.mark.parametrize("place", ["{tmp}/run", "memory://training-log/run"])
def test_steps_done_again_are_in_the_log_once(tmp_path, place):
    folder = RunFolder(place.format(tmp=tmp_path))
    with TrainingLog(folder) as log:
        for step in (1, 2, 3):
            log.add_step(progress(step))
        log.add_step(progress(3))
    assert logged(folder) == [1, 2, 3]
    with TrainingLog(folder) as log:
        for step in (3, 4):
            log.add_step(progress(step, loss=2.0))
    assert logged(folder) == [1, 2, 3, 4]
    last = (folder.read(LOG) or b"").splitlines()[2]
    assert json.loads(last)["loss"] == 2.0


def test_half_a_line_of_a_killed_process_is_dropped(tmp_path):
    folder = RunFolder(str(tmp_path))
    with TrainingLog(folder) as log:
        log.add_step(progress(1))
    with (tmp_path / LOG).open("a") as file:
        file.write('{"step": 2, "lo')
    with TrainingLog(folder) as log:
        log.add_step(progress(2))
    assert logged(folder) == [1, 2]


def test_steps_that_nobody_received_are_in_the_log_before_those_after_them(shards, tmp_path):
    """Workers that outlive their driver may write a checkpoint after the next one has begun."""
    what = clip_task(shards, tmp_path / "run")
    folder = RunFolder(what.output)

    class KilledError(Exception):
        pass

    def die_after_five(progress):
        if progress.step == 5:
            raise KilledError

    with TrainingLog(folder) as log:
        with pytest.raises(KilledError):
            fit(what, *ALONE, die_after_five)
        fit(what, *ALONE, log.add_step)  # goes on after step 4
    steps = [1, 2, 3, 4, 5, 6]
    assert logged(folder) == steps
    # Whoever misses the next ones finds all of them too.
    kept = (folder.read(RECENT) or b"").splitlines()
    assert [json.loads(line)["step"] for line in kept] == steps


def test_steps_that_a_dead_driver_did_not_hear_of_are_in_the_log(shards, tmp_path):
    what, told = clip_task(shards, tmp_path / "run"), {}
    folder = RunFolder(what.output)

    def deaf_after_two(progress):
        told[progress.step] = progress.loss
        if progress.step <= 2:
            log.add_step(progress)

    with TrainingLog(folder) as log:
        fit(what, *ALONE, deaf_after_two)
    assert logged(folder) == [1, 2]
    with TrainingLog(folder):
        assert logged(folder) == list(range(1, CONFIG.steps + 1))
    lines = map(json.loads, (folder.read(LOG) or b"").splitlines())
    assert {line["step"]: line["loss"] for line in lines} == told


def test_a_training_is_in_mlflow_with_figures_and_pictures(shards, tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    warned: list[str] = []
    config = replace(CONFIG, steps=10, batch=1, checkpoint_every=10)
    what = clip_task(
        shards, tmp_path / "run", config, make_snapshot=SnapshotMaker(), snapshot_every=5
    )
    with TrainingLog(
        RunFolder(what.output), open_mlflow(uri, "tests", warned.append), {"size": "tiny"}
    ) as log:
        fit(what, *ALONE, log.add_step, log.add_snapshot)
    assert warned == []
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["size"] == "tiny"
    expected = {"loss", "dense_giou", "quality", "learning_rate", "images_per_second"}
    expected |= {"gate_mean", "gate_least", "gate_greatest", "quality_mean", "gradient_norm"}
    assert expected <= set(run.data.metrics)
    pictures = sorted(artifact.path for artifact in client.list_artifacts(run.info.run_id))
    assert pictures == ["snapshot-0000005.png", "snapshot-0000010.png"]
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        steps = store.execute("select step from metrics where key = 'gate_mean'").fetchall()
    assert sorted(steps) == [(5,), (10,)]


def test_a_log_or_a_snapshot_that_fails_does_not_stop_the_training(shards, tmp_path):
    class Blind:
        def __call__(self, trainer, batch):
            raise RuntimeError("cannot draw")

    warned: list[str] = []
    what = clip_task(
        shards, tmp_path / "run", replace(CONFIG, steps=1), make_snapshot=Blind(), snapshot_every=1
    )
    (tmp_path / "file").write_text("no folder")
    bad = open_mlflow(f"sqlite:///{tmp_path}/file/mlflow.db", "tests", warned.append)
    with TrainingLog(RunFolder(what.output), bad) as log:
        fit(what, *ALONE, log.add_step, log.add_snapshot)
    assert (tmp_path / "run" / "finished").exists()
    assert len(warned) == 1 and "MLflow" in warned[0]


def test_a_snapshot_shows_frames_and_changes_nothing(shards):
    tracker = tiny_tracker(lively=True)
    trainer = Trainer(tracker, ClipObjective(), CONFIG, "cpu")
    before = {n: v.clone() for n, v in tracker.state_dict().items()}
    batch = next(iter(batches(clip_stream(shards), (CONFIG.batch,), 0, 1, 0)))
    snapshot = SnapshotMaker()(trainer, batch)
    picture = np.asarray(Image.open(io.BytesIO(snapshot.png)))
    # Two frames of each of two clips; a column is 320 wide, frame and map of 96 x 64 below.
    assert picture.shape == (2 * round(64 * 320 / 96) + 32, 4 * 320, 3)
    assert all(picture[:, i * 320 : (i + 1) * 320].std() > 10 for i in range(4))
    assert 0 <= snapshot.figures["gate_least"] <= snapshot.figures["gate_greatest"] <= 1
    assert all(torch.equal(v, before[n]) for n, v in tracker.state_dict().items())


def test_frames_without_labels_can_be_looked_at():
    images, valid, patches = tiny_inputs(5)
    severity = torch.tensor([0.0, 1, 2, 3, 4])
    batch = FrameBatch(
        images=images,
        clean=images,
        valid=valid,
        patches=patches,
        severity=severity,
        names=("v",) * 5,
    )
    trainer = Trainer(tiny_tracker(lively=True), ClipObjective(), CONFIG, "cpu")
    snapshot = SnapshotMaker()(trainer, batch)
    assert Image.open(io.BytesIO(snapshot.png)).size[0] == 4 * 320
    assert -1 <= snapshot.figures["quality_rank_correlation"] <= 1


def test_rank_correlation_is_spearmans():
    from scipy.stats import spearmanr

    random = np.random.default_rng(0)
    a, b = random.integers(0, 5, 40).astype(float), random.random(40)
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert rank_correlation(a, -np.exp(a)) == pytest.approx(-1)
    assert rank_correlation(np.ones(5), b[:5]) is None


def test_semantic_colours_tell_regions_apart():
    maps = torch.zeros(1, 8, 4, 6)
    maps[:, 0, :, :3], maps[:, 5, :, 3:] = 1.0, 1.0
    colours = semantic_colours(maps)[0].astype(int)
    assert colours.shape == (4, 6, 3)
    assert abs(colours[:, 0] - colours[:, 5]).max() > 200
    assert (colours[:, 0] == colours[:, 2]).all()
