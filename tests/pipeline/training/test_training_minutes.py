"""Time as the budget of a training: it ends when the time is up, and a run goes on with the rest.

The clock of most tests is their own.
"""

import json
from dataclasses import replace
from itertools import islice, pairwise
from types import SimpleNamespace

import pytest

from model.learn.clip_loss import ClipObjective
from model.learn.training import Objective, Trainer, TrainingError, train
from model.learn.training_config import STEPS, TrainingConfig, rate_at, share_used
from pipeline.training.batches import batches
from pipeline.training.fit import fit
from pipeline.training.run_folder import STATE, RunFolder
from pipeline.training.worker import DONE
from tests.tiny import tiny_tracker
from tests.training_parts import ALONE, CONFIG, clip_stream, clip_task

MINUTE = replace(CONFIG, steps=0, minutes=1.0)


class Plain(Objective):
    """Cheap: what is trained is of no matter here."""

    def forward(self, tracker, batch):
        return tracker.gate.bias.square().sum(), {}


def plain_task(shards, output, config):
    def build(device, communicator):
        return Trainer(tiny_tracker(), Plain(), config, device, communicator)

    return replace(clip_task(shards, output, config), build=build)


@pytest.fixture
def clock(monkeypatch):
    """Seconds pass where a test says so: `passes` a look at the clock."""
    clock = SimpleNamespace(now=0.0, passes=0.0)

    def perf_counter():
        clock.now += clock.passes
        return clock.now

    monkeypatch.setattr("model.learn.training.time", SimpleNamespace(perf_counter=perf_counter))
    return clock


def test_one_budget_and_no_other():
    assert TrainingConfig().steps == STEPS and not TrainingConfig().minutes
    assert TrainingConfig(minutes=9).steps == 0
    with pytest.raises(ValueError, match="steps=300 and minutes=9 are both given"):
        TrainingConfig(steps=300, minutes=9)
    with pytest.raises(ValueError, match="without minutes it must be 1 or more"):
        TrainingConfig(steps=0)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"minutes: .* allowed is a number, 0 or more"):
            TrainingConfig(minutes=wrong)


def test_the_rate_rises_by_steps_and_falls_by_time():
    config = TrainingConfig(minutes=2, warmup=10)
    assert rate_at(4, config) == pytest.approx(0.5)
    rates = [rate_at(1000, config, seconds) for seconds in range(0, 121, 10)]
    assert rates[0] == 1 and rates[6] == pytest.approx(0.5) and rates[-1] == pytest.approx(0)
    assert all(a > b for a, b in pairwise(rates))
    assert share_used(1000, 500.0, config) == 1


def test_training_ends_at_the_first_step_after_the_time_is_up(shards, tmp_path, clock):
    clock.passes = 2.0  # three looks a step: 6 seconds, but 4 to the first one's end
    seen = []
    fit(plain_task(shards, tmp_path / "run", MINUTE), *ALONE, seen.append)
    assert len(seen) == 11
    assert seen[-2].budget_used < 1 and seen[-1].budget_used == 1
    assert all(a.learning_rate > b.learning_rate for a, b in pairwise(seen[2:]))
    assert seen[-1].learning_rate < 0.1 * MINUTE.learning_rate
    done = json.loads((tmp_path / "run" / DONE).read_text())
    assert done["step"] == 11 and done["frames"] == 44 and done["seconds"] >= 60


def test_a_run_that_is_taken_up_has_what_is_left_of_its_time(shards, tmp_path, clock):
    class KilledError(Exception):
        pass

    def die_after_six(progress):
        if progress.step == 6:
            raise KilledError

    clock.passes = 2.0
    what = plain_task(shards, tmp_path / "run", MINUTE)
    with pytest.raises(KilledError):
        fit(what, *ALONE, die_after_six)
    clock.now += 1000  # while nothing ran
    seen = []
    fit(what, *ALONE, seen.append)
    # The checkpoint is that of step 4, after 22 seconds; the first step does not wait for another.
    assert [p.step for p in seen] == list(range(5, 12))
    assert seen[0].frames_seen == 20
    assert RunFolder(what.output).exists(DONE)


def test_used_up_minutes_are_an_error_and_more_of_them_go_on(shards, tmp_path, clock):
    clock.passes = 2.0
    fit(plain_task(shards, tmp_path / "run", MINUTE), *ALONE, lambda p: None)
    with pytest.raises(
        TrainingError,
        match=r"run: its budget is used up: 1\.1 of training\.minutes=1, in 11 steps"
        r".*a larger training\.minutes",
    ):
        fit(plain_task(shards, tmp_path / "run", MINUTE), *ALONE, pytest.fail)
    seen = []
    longer = replace(MINUTE, minutes=2.0)
    fit(plain_task(shards, tmp_path / "run", longer), *ALONE, seen.append)
    assert seen[0].step == 12 and 0.5 < seen[0].budget_used < 0.7
    assert seen[-1].budget_used == 1


def test_a_run_killed_before_its_weights_were_written_writes_them(shards, tmp_path, clock):
    clock.passes = 2.0
    what = plain_task(shards, tmp_path / "run", MINUTE)

    def out_of_memory(trainer, figures):
        raise MemoryError

    with pytest.raises(MemoryError):
        fit(replace(what, finish=out_of_memory), *ALONE, lambda p: None)
    fit(what, *ALONE, pytest.fail)
    assert (tmp_path / "run" / "finished").read_text() == "11"


def test_batches_do_not_end_where_steps_are_not_counted(shards):
    stream = clip_stream(shards)
    counted = list(batches(stream, (2,), 3, 5, 0))
    endless = list(islice(batches(stream, (2,), 3, 0, 1), 6))
    assert [b.names for b in endless[:2]] == [b.names for b in counted]
    assert len(endless) == 6


def test_the_score_is_of_the_averaged_student_and_goes_to_all_who_listen(shards, tmp_path):
    finished, scored = [], []

    def score(tracker):
        assert not tracker.training
        return {"ap50": 12.5, "pictures": float(len(tracker.state_dict()) > 0)}

    what = replace(
        clip_task(shards, tmp_path / "run", replace(CONFIG, steps=1)),
        score=score,
        finish=lambda trainer, figures: finished.append(figures),
    )
    fit(what, *ALONE, lambda p: None, on_score=scored.append)
    figures = {"ap50": 12.5, "pictures": 1.0}
    assert finished == [figures]
    assert [(s.step, s.frames, s.figures) for s in scored] == [(1, 4, figures)]
    done = json.loads((tmp_path / "run" / DONE).read_text())
    assert done["score"] == figures


def test_two_workers_stop_together_by_the_clock_of_the_first(two_processes, shards, tmp_path):
    config = replace(CONFIG, steps=0, minutes=1.0 / 60)
    told = two_processes(shards, tmp_path / "two", config)
    assert told[-1]["budget_used"] == 1
    assert all(step["budget_used"] < 1 for step in told[:-1])
    one = Trainer(tiny_tracker(), ClipObjective(), config, "cpu")
    one.resume((tmp_path / "two" / STATE).read_bytes(), "two")
    assert (one.step, one.position.frames) == (told[-1]["step"], told[-1]["frames_seen"])
    train(one, [], pytest.fail, pytest.fail)  # nothing is left of it
