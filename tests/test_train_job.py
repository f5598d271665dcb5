"""The training job from shards to weights that say what they saw and what they score."""

import json
from dataclasses import replace

import pytest

from jobs.distill_job import DistillJob
from jobs.train import main, run
from jobs.train_job import TrainJob
from jobs.training_run import MlflowSettings
from model.learn.training import TrainingError
from model.learn.training_config import TrainingConfig
from model.net.config import SIZES
from model.teach.teacher import TeacherSettings
from model.track.checkpoint import read_metadata
from pipeline.datasets.shards import ShardError
from pipeline.training.work import ClusterSettings
from tests.tiny import TINY
from tests.training_parts import CLIPS, CONFIG, write_shards


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "nano", replace(TINY, size="nano"))
    return TrainJob(
        shards=str(write_shards(tmp_path / "shards", val=3)),
        output=str(tmp_path / "run"),
        imagenet="",
        teacher=TeacherSettings(model=""),
        clips=replace(CLIPS, length=1),
        training=replace(CONFIG, steps=2, batch=4, batch_statistics=True, score=True),
        cluster=ClusterSettings(threads=1, loaders=0, device="cpu"),
        mlflow=MlflowSettings(enabled=False),
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
