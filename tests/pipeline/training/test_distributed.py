"""Training on a Ray cluster: the curve of one process, whatever dies on the way.

A cluster takes minutes to start and stop on a small machine, so all that needs one is slow.
"""

import json
import re
import signal
import threading
import time
from dataclasses import replace
from functools import partial

import pytest
import ray
from ray.cluster_utils import Cluster

from model.learn.training import TrainingError
from pipeline.runtime.settings import ClusterConfig
from pipeline.training import on_ray as distributed
from pipeline.training.config import WorkerConfig
from pipeline.training.fit import fit
from pipeline.training.run_folder import STATE, RunFolder
from tests.training_parts import (
    ALONE,
    CONFIG,
    build_dying,
    build_exploding,
    clip_task,
)

TWO = ClusterConfig(workers=2), WorkerConfig(loaders=1, device="cpu", max_failures=4)


@pytest.fixture(scope="module")
def undisturbed(two_processes, shards, tmp_path_factory):
    """Loss by step of two processes that nothing disturbed, and that know no Ray."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    return {told["step"]: told["loss"] for told in two_processes(shards, folder)}


@pytest.fixture(scope="module")
def cluster():
    """A head for the driver and a node for the workers; more are added by tests."""
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 4})
    ray.init(address=running.address, log_to_driver=False)
    yield running
    ray.shutdown()
    running.shutdown()


def the_same(seen, undisturbed, within=1e-5):
    """Every loss that was told of, also of steps done again, is the undisturbed one.

    With another number of workers sums are rounded otherwise, in the seventh digit at first; the
    large steps of this training make that some times more each time.
    """
    assert {step for step, _ in seen} == set(undisturbed)
    for step, loss in seen:
        assert loss == pytest.approx(undisturbed[step], rel=within), step


def keep(seen):
    return lambda p: seen.append((p.step, p.loss))


@pytest.mark.slow
def test_a_killed_worker_costs_steps_but_no_accuracy(cluster, shards, undisturbed, tmp_path):
    marker = tmp_path / "killed"
    what = replace(
        clip_task(shards, tmp_path / "run"), build=partial(build_dying, CONFIG, marker, 1, 3)
    )
    seen = []
    fit(what, *TWO, keep(seen))
    assert marker.exists()
    # It dies in step 4, after the checkpoint of step 2.
    assert [step for step, _ in seen].count(3) == 2
    the_same(seen, undisturbed)
    assert (tmp_path / "run" / "finished").read_text() == str(CONFIG.steps)


@pytest.mark.slow
def test_a_killed_node_with_its_worker(cluster, shards, undisturbed, tmp_path):
    node = cluster.add_node(num_cpus=2)
    crash = threading.Thread(target=cluster.remove_node, args=(node, False))
    seen = []

    def watch(progress):
        keep(seen)(progress)
        if progress.step == 3 and not crash.ident:
            crash.start()

    config = replace(CONFIG, checkpoint_every=1)
    # Six CPUs are wanted, so that a worker or its loader has to be on the node that crashes.
    fit(
        clip_task(shards, tmp_path / "run", config),
        ClusterConfig(workers=(1, 2)),
        replace(TWO[1], loaders=2),
        watch,
    )
    crash.join()
    the_same(seen, undisturbed, within=0.002)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_workers(cluster, shards, undisturbed, tmp_path):
    class StoppedError(Exception):
        pass

    seen = []

    def stop_after_four(progress):
        keep(seen)(progress)
        if progress.step == 4:
            raise StoppedError

    what = clip_task(shards, tmp_path / "run")
    with pytest.raises(StoppedError):
        fit(what, *ALONE, stop_after_four)
    fit(what, *TWO, keep(seen))
    assert [step for step, _ in seen] == [1, 2, 3, 4, 3, 4, 5, 6]
    the_same(seen, undisturbed, within=0.002)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_not_tried_again(cluster, shards, tmp_path):
    what = replace(clip_task(shards, tmp_path / "run"), build=partial(build_exploding, CONFIG, 3))
    seen = []
    with pytest.raises(TrainingError, match="loss is nan at step 3 on clips"):
        fit(what, *TWO, keep(seen))
    assert [step for step, _ in seen] == [1, 2, 3]
    assert RunFolder(what.output).exists(STATE)
    assert not (tmp_path / "run" / "finished").exists()


def test_a_batch_that_cannot_be_shared_is_refused_before_anything_starts(shards, tmp_path):
    what = clip_task(shards, tmp_path / "run")
    with pytest.raises(
        TrainingError, match=r"a batch of 2 .* for 3 workers; give a training\.batch"
    ):
        fit(what, ClusterConfig(workers=(1, 4)), TWO[1], print)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_workers_that_find_no_room_are_an_error_that_says_what_is_there(
    cluster, shards, tmp_path, monkeypatch
):
    monkeypatch.setattr(distributed, "_ROOM_WITHIN_S", 1.0)
    config = replace(CONFIG, batch=64)
    with pytest.raises(
        TrainingError, match=r"64 workers of 1 CPU.* need 128 CPU; there is .*4 CPU"
    ):
        fit(clip_task(shards, tmp_path / "run", config), ClusterConfig(workers=64), TWO[1], print)
    with pytest.raises(TrainingError, match=r"1 GPU.*0 GPU"):
        fit(clip_task(shards, tmp_path / "run"), TWO[0], replace(TWO[1], device="cuda"), print)


@pytest.mark.slow
@pytest.mark.timeout(600)  # three clusters, one after the other
def test_a_killed_driver_is_run_again(warm, shards, tmp_path):
    """The command itself, with a cluster of its own."""
    output = tmp_path / "run"
    words = [
        *(
            f"shards={shards}",
            f"output={output}",
            "imagenet=",
            "mlflow.enabled=false",
        ),
        *("clips.height=64", "clips.width=96", "clips.length=2", "training.batch=2"),
        *("training.steps=8", "training.checkpoint_every=2"),
        *("cluster.workers=2", "worker.loaders=1", "worker.device=cpu"),
    ]

    def command(place, *more):
        places = [word.replace(str(output), str(place)) for word in words]
        return "jobs.train", [*places, *more]

    def losses(place):
        lines = (place / "log.jsonl").read_text().splitlines()
        return {row["step"]: row["loss"] for row in map(json.loads, lines)}

    whole = tmp_path / "whole"
    warm.run(*command(whole)).check_returncode()
    first = warm.start(*command(output))
    deadline = time.monotonic() + 200
    while not (output / "log.jsonl").exists() or len(losses(output)) < 3:
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.2)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert max(losses(output)) < 8
    warm.run(*command(output)).check_returncode()
    assert losses(output) == pytest.approx(losses(whole), rel=1e-5)
    weights = output / "vsdmot-nano.safetensors"
    assert re.search(rb"started_from", weights.read_bytes()[:100_000])


@pytest.mark.slow
def test_minutes_are_the_budget_on_a_cluster_too(cluster, shards, tmp_path):
    # Waits for data count, and so does the start of Ray Data.
    what = clip_task(shards, tmp_path / "run", replace(CONFIG, steps=0, minutes=0.5))
    what = replace(what, score=lambda tracker: {"ap50": 1.0})
    seen, scored = [], []
    fit(what, *TWO, seen.append, on_score=scored.append)
    assert [p.step for p in seen] == list(range(1, len(seen) + 1))
    assert seen[-2].budget_used < 1 and seen[-1].budget_used == 1
    assert [(s.step, s.figures) for s in scored] == [(seen[-1].step, {"ap50": 1.0})]
    assert (tmp_path / "run" / "finished").read_text() == str(seen[-1].step)
