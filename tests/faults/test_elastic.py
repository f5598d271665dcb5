"""A cluster that grows and shrinks while a run goes on."""

import json
import time

import pytest
import ray
from ray.cluster_utils import Cluster

from jobs.track import main
from pipeline.archive import archive, on_ray
from pipeline.archive.on_ray import read_on_ray
from pipeline.storage.files import list_videos
from pipeline.tracking import on_ray as pool
from pipeline.tracking import run
from pipeline.video.limits import Limits
from tests.faults import dying_headers, invariant
from tests.videos import write_video

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
VIDEOS = 10


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("elastic")
    for number in range(VIDEOS):
        write_video(folder / f"{number}.mp4", frames=60 + number)
    return folder


def workers(output):
    """Processes that are tracking a video, by the ledger of attempts."""
    found = set()
    for path in output.glob("attempts/*/*.json"):
        try:
            found.add(json.loads(path.read_text())["pid"])
        except FileNotFoundError:  # the attempt has ended meanwhile
            continue
    return found


def wait_for(condition, driver, seconds=240):
    until = time.monotonic() + seconds
    while not condition():
        assert driver.poll() is None, driver.said()
        assert time.monotonic() < until, driver.said()
        time.sleep(0.02)


def test_machines_that_join_get_work_and_those_that_go_lose_no_rows(
    drivers, command, source, holds, stopwatch, tmp_path
):
    argv = command(tmp_path / "undisturbed", "decode.window=1", source=source)
    code, said = drivers.run(argv)
    assert code == 0, said
    expected = invariant.read(str(tmp_path / "undisturbed"))
    output = tmp_path / "out"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        started = stopwatch()
        address = f"cluster.address={cluster.address}", "cluster.workers=[1,3]"
        argv = command(output, "decode.window=1", *address, source=source)
        driver = drivers.start(argv, ("slow_workers", ()))
        wait_for(lambda: workers(output), driver)
        assert len(workers(output)) == 1  # there is one CPU
        joined = cluster.add_node(num_cpus=1)
        wait_for(lambda: len(workers(output)) > 1, driver)
        cluster.remove_node(joined, allow_graceful=False)
        code, said = driver.wait(timeout=400), driver.said()
    finally:
        cluster.shutdown()
    assert code == 0, said
    holds(output, "a node joins, then it is killed", stopwatch() - started, expected)


def test_headers_are_read_by_the_cluster_while_videos_are_tracked(
    command, source, drivers, holds, stopwatch, tmp_path, monkeypatch
):
    """Chunks of two videos, so that most headers are read after Ray has started."""
    code, said = drivers.run(command(tmp_path / "undisturbed", source=source))
    assert code == 0, said
    read = []

    def counted(files, threads, limits):
        found = read_on_ray(files, threads, limits)
        read.extend(file.relative_path for file in files)
        return found

    monkeypatch.setattr(run, "FIRST", 2)
    monkeypatch.setattr(run, "CHUNK", 2)
    monkeypatch.setattr(archive, "_BATCH", 1)
    monkeypatch.setattr(archive, "_AHEAD", 2)
    monkeypatch.setattr(on_ray, "read_on_ray", counted)
    started = stopwatch()
    assert main([*command(tmp_path / "out", source=source), "cluster.workers=1"]) == 0
    assert read and set(read) < {f"{number}.mp4" for number in range(VIDEOS)}
    expected = invariant.read(str(tmp_path / "undisturbed"))
    holds(tmp_path / "out", "none, chunks of two videos", stopwatch() - started, expected)


def test_a_header_that_kills_its_reader_on_ray(tmp_path):
    for name in ("a", "b", "crash", "hang"):
        write_video(tmp_path / f"{name}.mp4", frames=3)
    files = list(list_videos(str(tmp_path)))
    with pool.connected("", 1):
        # Workers of Ray import the function by its name.
        task = ray.remote(num_cpus=0)(dying_headers.read_in_a_worker)
        found = {item.relative_path: item for item in ray.get(task.remote(files, 4, Limits()))}
        assert [item.kind for item in (found["crash.mp4"], found["hang.mp4"])] == [
            "poison", "deadline"
        ]  # fmt: skip
        assert {found[f"{name}.mp4"].frames_expected for name in "ab"} == {3}
