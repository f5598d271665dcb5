"""Long videos that are tracked in parts: killed between them, while joining, doubled, lost."""

import os
import shutil
import signal
import time

import psutil
import pytest

from model.track.checkpoint import CheckpointMetadata, save_tracker
from tests.faults import invariant
from tests.tiny import TINY, tiny_tracker
from tests.videos import write_video

RESUME = "split.mode=resume", "split.seconds=1", "split.overlap_s=0.4"
PARALLEL = "split.mode=parallel", "split.seconds=1", "split.overlap_s=0.4"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """One video of almost five seconds: four parts, or four windows."""
    folder = tmp_path_factory.mktemp("source")
    write_video(folder / "long.mp4", frames=120)
    return folder


@pytest.fixture(scope="module")
def long_command(command, source):
    return lambda output, *more: command(output, "decode.window=4", *more, source=source)


@pytest.fixture(scope="module")
def expected(drivers, long_command, tmp_path_factory):
    """Rows of runs that nothing disturbed: in one pass, and in windows."""
    found = {}
    for mode, settings in (("resume", ("split.mode=video",)), ("parallel", PARALLEL)):
        output = tmp_path_factory.mktemp(mode)
        code, said = drivers.run(long_command(output, *settings), ("probe_here", ()))
        assert code == 0, said
        found[mode] = invariant.read(str(output))
        assert len(found[mode]["videos"]) == 1 and found[mode]["tracks"]
    assert found["parallel"]["videos"][0]["split_mode"] == "parallel"
    assert found["parallel"]["videos"][0]["segments"] == 4
    return found


@pytest.fixture
def again(drivers, holds, expected, stopwatch):
    """Run again to the end, check the rows, and that no part is left; gives what it said."""

    def run(argv, output, injected, mode):
        started = stopwatch()
        code, said = drivers.run(argv, ("probe_here", ()))
        assert code == 0, said
        if list(output.glob("parts/*/*")):  # the run before died while it removed them
            assert drivers.run(argv, ("probe_here", ()))[0] == 0
        holds(output, injected, stopwatch() - started, expected[mode])
        assert not list(output.glob("parts/*/*"))
        return said.replace("\n", " ")

    return run


def killed(drivers, argv, words, number=1):
    code, said = drivers.run(argv, ("kill_at", (words, number)))
    assert code == -signal.SIGKILL, said


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("mode", "words", "number"),
    [
        ("resume", "2.state", 1),
        pytest.param("resume", "0.tracks", 1, marks=SLOW),
        pytest.param("resume", "1.frames", 1, marks=SLOW),
        pytest.param("resume", "/attempts/", 2, marks=SLOW),  # of the attempt, at its end
        pytest.param("resume", "/out/tracks", 1, marks=SLOW),
        pytest.param("resume", "/out/videos", 1, marks=SLOW),
        pytest.param("resume", "0.state", 2, marks=SLOW),  # its removal
        ("parallel", "/out/videos", 1),  # while it joins
        pytest.param("parallel", "w1of4.tracks", 1, marks=SLOW),
        pytest.param("parallel", "w2of4.json", 1, marks=SLOW),
        pytest.param("parallel", "/out/frames", 1, marks=SLOW),
        pytest.param("parallel", "/out/seams", 1, marks=SLOW),
        pytest.param("parallel", "w3of4.json", 2, marks=SLOW),  # its removal
    ],
)
def test_killed_before_a_change(drivers, long_command, again, tmp_path, mode, words, number):
    output = tmp_path / "out"
    argv = long_command(output, *{"resume": RESUME, "parallel": PARALLEL}[mode])
    code, said = drivers.run(argv, ("kill_at", (words, number)))
    assert code == -signal.SIGKILL, said
    again(argv, output, f"SIGKILL before {words}", mode)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_every_write_in_mode_resume(drivers, long_command, again, tmp_path):
    """Again and again in one output, so that each run gets some writes further."""
    argv, number = long_command(tmp_path, *RESUME), 5
    while (ended := drivers.run(argv, ("kill_at_write", (number,))))[0] == -signal.SIGKILL:
        number += 3
    assert ended[0] == 0, ended
    assert number > 11
    again(argv, tmp_path, "SIGKILL, run after run", "resume")


@pytest.mark.slow
def test_killed_inside_a_part(drivers, long_command, again, tmp_path):
    for number in (5, 7, 10):
        output = tmp_path / str(number)
        argv = long_command(output, *RESUME)
        code, said = drivers.run(argv, ("kill_inside_write", (number,)))
        assert code == -signal.SIGKILL, said
        again(argv, output, f"SIGKILL before name {number}", "resume")


def test_a_part_lost(drivers, long_command, again, tmp_path):
    argv = long_command(tmp_path, *RESUME)
    killed(drivers, argv, "2.state")
    next(tmp_path.glob("parts/*/1.tracks.parquet")).unlink()
    said = again(argv, tmp_path, "a part removed", "resume")
    assert "1.tracks.parquet is missing), so tracking went on from part 0" in said


@pytest.mark.slow
def test_a_state_of_another_model(drivers, long_command, again, tmp_path):
    other = tmp_path / "other.safetensors"
    save_tracker(other, tiny_tracker(1, lively=True), CheckpointMetadata(model=TINY))
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    killed(drivers, long_command(theirs, *RESUME, f"weights={other}"), "2.state")
    argv = long_command(ours, *RESUME)
    killed(drivers, argv, "0.tracks")
    shutil.copytree(theirs / "parts", ours / "parts", dirs_exist_ok=True)
    said = again(argv, ours, "parts of other weights", "resume")
    assert "model_sha256 is" in said and "went on from the start" in said


@pytest.mark.slow
def test_a_window_lost(drivers, long_command, again, tmp_path):
    argv = long_command(tmp_path, *PARALLEL)
    killed(drivers, argv, "w3of4.json")
    next(tmp_path.glob("parts/*/w1of4.looks.parquet")).unlink()
    said = again(argv, tmp_path, "a window's part removed", "parallel")
    assert "window 1 was tracked again" in said


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["resume", "parallel"])
def test_two_drivers_on_one_long_video(
    drivers, long_command, holds, expected, stopwatch, tmp_path, mode
):
    argv = long_command(tmp_path, *(RESUME if mode == "resume" else PARALLEL))
    both = [drivers.start(argv, ("probe_here", ())) for _ in range(2)]
    codes = [driver.wait() for driver in both]
    assert codes == [0, 0], [driver.said() for driver in both]
    holds(tmp_path, f"second driver, mode {mode}", stopwatch(), expected[mode])


def worker_of(driver):
    children = psutil.Process(driver.pid).children(recursive=True)
    return next(child for child in children if "ray::MapWorker" in child.name())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_killed_goes_on_from_the_last_part(
    drivers, long_command, holds, expected, stopwatch, tmp_path
):
    argv = [*long_command(tmp_path, *RESUME), "cluster.workers=1"]
    driver = drivers.start(argv, ("slow_workers", ()))
    wait_for(lambda: list(tmp_path.glob("parts/*/1.state.*")), driver)
    first = next(tmp_path.glob("parts/*/0.state.*"))
    written, started = first.stat().st_mtime_ns, stopwatch()
    os.kill(worker_of(driver).pid, signal.SIGKILL)
    while driver.poll() is None:
        if first.exists():  # it would be written anew if the video were tracked from its start
            assert first.stat().st_mtime_ns == written
        time.sleep(0.01)
    assert driver.poll() == 0, driver.said()
    holds(tmp_path, "SIGKILL of ray::MapWorker", stopwatch() - started, expected["resume"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_killed_in_a_window(drivers, long_command, holds, expected, stopwatch, tmp_path):
    argv = [*long_command(tmp_path, *PARALLEL), "cluster.workers=2"]
    driver = drivers.start(argv, ("slow_workers", ()))
    wait_for(lambda: list(tmp_path.glob("parts/*/*.json")), driver)
    started = stopwatch()
    os.kill(worker_of(driver).pid, signal.SIGKILL)
    assert driver.wait(timeout=300) == 0, driver.said()
    holds(tmp_path, "SIGKILL of ray::MapWorker", stopwatch() - started, expected["parallel"])


def wait_for(found, driver, seconds=240):
    until = time.monotonic() + seconds
    while not found():
        assert driver.poll() is None and time.monotonic() < until, driver.said()
        time.sleep(0.01)
