"""Drivers killed, stopped, doubled, starved: the output is that of an undisturbed run."""

import json
import signal
import time

import pytest

from pipeline.storage import files as storage


def again(drivers, argv, *faults):
    code, said = drivers.run(argv, ("probe_here", ()), *faults)
    assert code == 3, said


@pytest.mark.parametrize("number", [8, 9, 10, 11])
def test_killed_before_a_write(drivers, command, holds, stopwatch, tmp_path, number):
    """Before the first video's tracks, its frames, its row, and the end of its ledger entry."""
    code, said = drivers.run(command(tmp_path), ("kill_at_write", (number,)))
    assert code == -signal.SIGKILL, said
    started = stopwatch()
    again(drivers, command(tmp_path))
    holds(tmp_path, f"SIGKILL before write {number}", stopwatch() - started)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_every_write(drivers, command, holds, stopwatch, tmp_path):
    """Before each change of the output, until a run has fewer changes than that.

    Just after a change is just before the next one: the disk is the same.
    """
    number = 0
    while True:
        number += 1
        output = tmp_path / str(number)
        code, said = drivers.run(command(output), ("kill_at_write", (number,)))
        if code == 3:
            break
        assert code == -signal.SIGKILL, said
        started = stopwatch()
        again(drivers, command(output))
        holds(output, f"SIGKILL before write {number}", stopwatch() - started)
    assert number > 15  # the probe, run.json, letter, manifest, and five for each video


def test_killed_inside_a_write(drivers, command, holds, stopwatch, tmp_path):
    for number in (1, 3, 6):
        output = tmp_path / str(number)
        code, said = drivers.run(command(output), ("kill_inside_write", (number,)))
        assert code == -signal.SIGKILL, said
        started = stopwatch()
        again(drivers, command(output))
        holds(output, f"SIGKILL before name {number}", stopwatch() - started)


def test_two_drivers_at_once(drivers, command, holds, stopwatch, tmp_path):
    both = [drivers.start(command(tmp_path), ("probe_here", ())) for _ in range(2)]
    codes = [driver.wait() for driver in both]
    assert codes == [3, 3], [driver.said() for driver in both]
    holds(tmp_path, "second driver", stopwatch())


def test_two_drivers_where_nothing_can_be_created_once(
    drivers, command, holds, stopwatch, tmp_path
):
    both = [
        drivers.start(command(tmp_path), ("probe_here", ()), ("no_links", ())) for _ in range(2)
    ]
    codes = [driver.wait() for driver in both]
    assert codes == [3, 3], [driver.said() for driver in both]
    assert "start only one" in both[0].said()
    holds(tmp_path, "no hard links, second driver", stopwatch())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal(drivers, command, holds, stopwatch, tmp_path, number):
    faults = ("probe_here", ()), ("slow", (0.2,))
    driver = drivers.start(command(tmp_path, "decode.window=1"), *faults)
    wait_for(lambda: list(tmp_path.glob("attempts/*/*.json")), driver)
    driver.send_signal(number)
    assert driver.wait() == 4, driver.said()
    said = driver.said()
    assert f"stopped by {number.name}: 3 videos are left" in said.replace("\n", " ")
    assert not list(tmp_path.glob("attempts/*/*.json"))  # not held against the video
    started = stopwatch()
    again(drivers, command(tmp_path))
    holds(tmp_path, number.name, stopwatch() - started)


def test_second_signal_stops_at_once(drivers, command, tmp_path):
    driver = drivers.start(command(tmp_path), ("probe_here", ()), ("hang_model_on", ("a.mp4",)))
    wait_for(lambda: list(tmp_path.glob("attempts/a-*/*.json")), driver)
    driver.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    driver.send_signal(signal.SIGTERM)
    assert driver.wait() == 128 + signal.SIGTERM


@pytest.mark.parametrize("fault", ["disk_full", "read_only"])
@pytest.mark.parametrize("after", [0, 4, 7])
def test_output_fails(drivers, command, holds, stopwatch, tmp_path, fault, after):
    output = tmp_path / "out"
    code, said = drivers.run(command(output), (fault, (after,)), ("probe_here", ()))
    assert code == 1, said
    said = said.replace("\n", " ")
    assert f"cannot write {output}" in said
    assert "choose an output on another disk" in said
    assert "Traceback" not in said
    assert not list(output.rglob(".*.tmp"))  # no half file
    started = stopwatch()
    again(drivers, command(output))
    holds(output, f"write {after + 1} and on", stopwatch() - started)


def test_temporary_folder_full(drivers, command, holds, stopwatch, tmp_path):
    """Of one machine among many: no video is to blame, and the next one would fare no better."""
    code, said = drivers.run(command(tmp_path), ("probe_here", ()), ("temporary_folder_full", ()))
    assert code == 1, said
    said = said.replace("\n", " ")
    assert "No space left on device; free some space there, or set TMPDIR" in said
    assert len(storage.list_stems(f"{tmp_path}/dead_letters")) == 1  # the one that is no video
    assert not list(tmp_path.glob("attempts/*/*.json"))
    started = stopwatch()
    again(drivers, command(tmp_path))
    holds(tmp_path, "no space for rows", stopwatch() - started)


def test_killed_worker_leaves_no_rows_on_disk(drivers, command, holds, stopwatch, tmp_path):
    output, temporary = tmp_path / "out", tmp_path / "temporary"
    temporary.mkdir()
    faults = ("probe_here", ()), ("slow", (0.2,)), ("temporary_folder", (str(temporary),))
    driver = drivers.start(command(output, "decode.window=1"), *faults)
    wait_for(lambda: list(output.glob("attempts/*/*.json")), driver)
    time.sleep(0.5)
    driver.send_signal(signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    assert not list(temporary.iterdir())
    started = stopwatch()
    again(drivers, command(output))
    holds(output, "SIGKILL with rows on disk", stopwatch() - started)


def test_clock_that_jumps(drivers, command, holds, stopwatch, tmp_path):
    again(drivers, command(tmp_path), ("clock_jumps", ()))
    holds(tmp_path, "a day back at every look", stopwatch())


def test_storage_fails_on_one_file(drivers, command, holds, stopwatch, tmp_path):
    code, said = drivers.run(command(tmp_path), ("unreadable", ("b.mkv",)))
    assert code == 1, said
    assert "connection lost" in said
    assert len(storage.list_stems(f"{tmp_path}/videos")) == 2  # the others are done
    assert len(storage.list_stems(f"{tmp_path}/dead_letters")) == 1  # and it is not buried
    started = stopwatch()
    again(drivers, command(tmp_path))
    holds(tmp_path, "one file unreadable", stopwatch() - started)


def test_more_memory_than_there_is(drivers, command, tmp_path):
    code, said = drivers.run(command(tmp_path, "decode.queue_size=900000000"), ("probe_here", ()))
    assert code == 2, said
    assert "Lower cluster.workers, cluster.streams, decode.window" in said.replace("\n", " ")


def test_run_record_without_the_rest(drivers, command, holds, stopwatch, tmp_path):
    """As left by a driver killed right after its claim."""
    code, _ = drivers.run(command(tmp_path), ("kill_at_write", (5,)))
    assert code == -signal.SIGKILL
    assert json.loads((tmp_path / "run.json").read_text())["job"] == "track"
    again(drivers, command(tmp_path))
    holds(tmp_path, "SIGKILL after the claim", stopwatch())


def wait_for(found, driver, seconds=60):
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, driver.said()
        time.sleep(0.02)
