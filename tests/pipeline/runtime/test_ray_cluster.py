"""A cluster that a job starts for itself is reached by nobody else."""

import os
from types import SimpleNamespace

import psutil
import pytest
from mlflow.environment_variables import MLFLOW_DISABLE_TELEMETRY
from ray._common.usage.usage_lib import usage_stats_enabled
from ray._private import ray_constants

from model.learn.training import TrainingError
from pipeline.runtime import ray_cluster
from pipeline.runtime.mlflow_run import MlflowRun
from pipeline.runtime.settings import ClusterConfig
from pipeline.runtime.stop import ClusterError
from pipeline.tracking import on_ray as pool
from pipeline.training import on_ray as distributed
from pipeline.training.config import WorkerConfig
from pipeline.training.fit import fit
from tests.training_parts import clip_task

VARIABLE = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR


@pytest.fixture
def started(monkeypatch):
    """What each start of a Ray that is none was given, and whether it was told of loopback."""
    starts = []

    def init(**options):
        alone = os.environ.get(VARIABLE) == "0" and not ray_constants.ENABLE_RAY_CLUSTER
        starts.append((options, alone))

    def shutdown():
        pass

    fake = SimpleNamespace(init=init, shutdown=shutdown, is_initialized=lambda: False)
    monkeypatch.setattr(ray_cluster, "ray", fake)
    return starts


def test_processes_of_a_new_cluster_inherit_variables_and_others_are_told(monkeypatch):
    seen = []

    def init(**options):
        seen.append((os.environ.get("VSDMOT_TEST"), options.get("runtime_env")))

    fake = SimpleNamespace(init=init, shutdown=lambda: None, is_initialized=lambda: False)
    monkeypatch.setattr(ray_cluster, "ray", fake)
    for address in ("", "auto"):
        with ray_cluster.connected(address, 1, {"VSDMOT_TEST": "1"}):
            assert "VSDMOT_TEST" not in os.environ, "processes of this job do not need it"
    assert seen == [("1", None), (None, {"env_vars": {"VSDMOT_TEST": "1"}})]


@pytest.mark.parametrize("connect", [pool.connected, distributed._connected])
@pytest.mark.parametrize("address", ["", "auto"])
def test_every_job_starts_its_own_cluster_on_loopback_and_leaves_others_alone(
    started, connect, address
):
    with connect(address, 2):
        ((options, alone),) = started
    assert alone == (not address)
    assert options["address"] == (address or "local")
    assert ("num_cpus" in options) == (not address)


def test_ray_does_not_report_its_use(started, monkeypatch):
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    with ray_cluster.connected("", 1):
        assert not usage_stats_enabled()
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    with ray_cluster.connected("", 1):
        assert usage_stats_enabled(), "who wants it can have it"


def test_mlflow_does_not_report_its_use(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    MlflowRun(f"file:{tmp_path}", "nothing", lambda reason: None).close("FINISHED")
    assert MLFLOW_DISABLE_TELEMETRY.get() is True


@pytest.mark.parametrize("before", [None, "1", "0"])
def test_the_environment_is_as_it_was_before(monkeypatch, before):
    if before is None:
        monkeypatch.delenv(VARIABLE, raising=False)
    else:
        monkeypatch.setenv(VARIABLE, before)
    flag = ray_constants.ENABLE_RAY_CLUSTER
    with ray_cluster.on_loopback():
        assert os.environ[VARIABLE] == "0"
    assert os.environ.get(VARIABLE) == before
    assert flag == ray_constants.ENABLE_RAY_CLUSTER


def test_a_cluster_that_does_not_start_is_tried_again_and_then_told(started, monkeypatch):
    tries = []

    def init(**options):
        tries.append(options)
        raise RuntimeError("no room")

    monkeypatch.setattr(ray_cluster.ray, "init", init)
    with pytest.raises(ClusterError, match=r"no room.*cluster\.workers=0"), pool.connected(None, 1):
        pass
    assert len(tries) == 3
    with pytest.raises(TrainingError, match="no room"), distributed._connected("", 1):
        pass


@pytest.mark.slow
def test_a_training_listens_on_loopback_alone(shards, tmp_path):
    def listening():
        found = psutil.net_connections("inet")
        return {(c.laddr.ip, c.laddr.port) for c in found if c.status == psutil.CONN_LISTEN}

    before, opened = listening(), set()
    what = clip_task(shards, tmp_path / "run")
    cluster, worker = ClusterConfig(workers=2), WorkerConfig(loaders=0, device="cpu")
    fit(what, cluster, worker, lambda _: opened.update(listening() - before))
    assert opened
    assert {ip.removeprefix("::ffff:") for ip, _ in opened} <= {"127.0.0.1", "::1"}, opened
