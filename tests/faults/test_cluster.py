"""Ray: workers that crash and hang, nodes and heads that are lost, signals."""

import os
import signal
import threading
import time

import psutil
import pyarrow.parquet as pq
import pytest
import ray
from ray.cluster_utils import Cluster

from jobs.track import main
from pipeline.tracking import on_ray as pool
from tests.faults import invariant
from tests.faults.injected import FaultyTracker, SlowTracker
from tests.videos import write_video

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
VIDEOS = 6


@pytest.fixture(scope="module")
def long_archive(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    for number in range(VIDEOS):
        write_video(folder / f"{number}.mp4", frames=50 + number)
    return folder


@pytest.fixture(scope="module")
def long_command(command, long_archive):
    """Windows of one frame take long enough to be killed in; all runs alike, as another window
    rounds otherwise."""
    return lambda output: command(output, "decode.window=1", source=long_archive)


@pytest.fixture(scope="module")
def long_reference(drivers, long_command, tmp_path_factory):
    output = tmp_path_factory.mktemp("long-undisturbed")
    code, said = drivers.run(long_command(output))
    assert code == 0, said
    return invariant.read(str(output))


def on_ray(argv):
    """The arguments with a worker, and main's exit code however it leaves."""
    try:
        return main([*argv, "cluster.workers=2"])
    except SystemExit as leaving:
        return leaving.code


def commits(output):
    return len(list(output.glob("videos/*.parquet")))


def wait_for_commit(output, alive=lambda: True, seconds=300):
    deadline = time.monotonic() + seconds
    while not commits(output):
        assert alive() and time.monotonic() < deadline
        time.sleep(0.05)


def listening():
    return {
        (c.laddr.ip, c.laddr.port)
        for c in psutil.net_connections("inet")
        if c.status == psutil.CONN_LISTEN
    }


@pytest.mark.parametrize("streams", [1, 3])
def test_crash_and_hang_on_ray(drivers, command, holds, stopwatch, tmp_path, monkeypatch, streams):
    monkeypatch.setattr(pool, "VideoTracker", FaultyTracker)
    limits = "limits.deadline_base_s=5", "limits.deadline_frame_s=0.01"
    argv = command(tmp_path, *limits, f"cluster.streams={streams}")
    assert on_ray(argv) == 3
    letters = [pq.read_table(path).to_pylist()[0] for path in tmp_path.glob("dead_letters/*")]
    kinds = {row["relative_path"]: (row["kind"], row["attempts"]) for row in letters}
    assert kinds["yard/b.mkv"] == ("poison", 3)
    assert kinds["a.mp4"][0] == "deadline"
    assert commits(tmp_path) == 1
    started = stopwatch()
    code, said = drivers.run([*command(tmp_path), "retry_dead_letters=true"])
    assert code == 3, said
    holds(tmp_path, f"SIGSEGV and a hang, {streams} at once", stopwatch() - started)


def test_ray_listens_on_loopback_alone():
    before = listening()
    with pool.connected(None, 1):
        opened = listening() - before
        assert opened
        assert {ip.removeprefix("::ffff:") for ip, _ in opened} <= {"127.0.0.1", "::1"}, opened


def test_node_lost(long_command, long_reference, holds, stopwatch, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "VideoTracker", SlowTracker)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
    try:
        ray.init(address=cluster.address, logging_level="ERROR")

        def kill():
            wait_for_commit(tmp_path)
            cluster.remove_node(nodes[0], allow_graceful=False)

        killer = threading.Thread(target=kill)
        killer.start()
        code = on_ray(long_command(tmp_path))
        killer.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert code == 0
    holds(tmp_path, "node killed", stopwatch(), long_reference)


def start_driver(drivers, argv):
    impatient = {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"}
    return drivers.start([*argv, "cluster.workers=1"], **impatient)


def descendant(pid, name):
    return next(p for p in psutil.Process(pid).children(recursive=True) if name in p.name())


@pytest.mark.parametrize("what", ["ray::MapWorker", "gcs_server", "raylet", "driver"])
def test_process_killed(drivers, long_command, long_reference, holds, stopwatch, tmp_path, what):
    output = tmp_path / "out"
    argv = long_command(output)
    driver = start_driver(drivers, argv)
    wait_for_commit(output, lambda: driver.poll() is None)
    target = driver.pid if what == "driver" else descendant(driver.pid, what).pid
    os.kill(target, signal.SIGKILL)
    code, said = driver.wait(timeout=240), driver.said()
    started = stopwatch()
    if what == "ray::MapWorker":  # Ray starts another, and the run goes on
        assert code == 0, said
    else:
        assert code != 0, said
        code, said = drivers.run(argv)
        assert code == 0, said
    holds(output, f"SIGKILL of {what}", stopwatch() - started, long_reference)


def test_sigterm_on_ray(drivers, long_command, long_reference, holds, stopwatch, tmp_path):
    output = tmp_path / "out"
    argv = long_command(output)
    driver = start_driver(drivers, argv)
    wait_for_commit(output, lambda: driver.poll() is None)
    driver.send_signal(signal.SIGTERM)
    code, said = driver.wait(timeout=60), driver.said().replace("\n", " ")
    assert code == 4, said
    assert "stopped by SIGTERM" in said
    assert not list(output.glob("attempts/*/*.json"))
    started = stopwatch()
    code, said = drivers.run(argv)
    assert code == 0, said
    holds(output, "SIGTERM on Ray", stopwatch() - started, long_reference)
