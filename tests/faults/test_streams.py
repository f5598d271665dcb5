"""Several videos in one worker: the rows of each alone, and only the guilty one is buried."""

import signal

import pyarrow.parquet as pq

from tests.faults.test_drivers import wait_for

STREAMS = "cluster.streams=3"


def test_videos_beside_each_other_have_the_rows_of_each_alone(
    drivers, command, holds, stopwatch, tmp_path
):
    code, said = drivers.run(command(tmp_path, STREAMS), ("probe_here", ()))
    assert code == 3, said
    assert not list(tmp_path.glob("attempts/*/*.json"))
    holds(tmp_path, "nothing, three videos at once", stopwatch())


def test_a_crash_beside_others_buries_the_guilty_video_alone(
    drivers, command, holds, stopwatch, tmp_path
):
    argv, died = command(tmp_path, STREAMS), 0
    while (ended := drivers.run(argv, ("probe_here", ()), ("die_on", ("b.mkv", 11))))[0] != 3:
        assert ended[0] == -signal.SIGSEGV and died < 6, ended
        died += 1
        # Videos that were beside it are repeated, each alone, before or after its next death.
        assert not list(tmp_path.glob("dead_letters/[ac]*"))
    letter = pq.read_table(next(tmp_path.glob("dead_letters/b-*"))).to_pylist()[0]
    assert (letter["kind"], letter["attempts"], died) == ("poison", 3, 4)
    assert len(list(tmp_path.glob("videos/*.parquet"))) == 2
    started = stopwatch()
    code, said = drivers.run([*argv, "retry_dead_letters=true"], ("probe_here", ()))
    assert code == 3, said
    holds(tmp_path, "SIGSEGV beside two videos", stopwatch() - started)


def test_a_signal_ends_all_videos_at_once(drivers, command, holds, stopwatch, tmp_path):
    faults = ("probe_here", ()), ("slow", (0.2,))
    driver = drivers.start(command(tmp_path, STREAMS, "decode.window=1"), *faults)
    wait_for(lambda: len(list(tmp_path.glob("attempts/*/*.json"))) == 3, driver)
    driver.send_signal(signal.SIGTERM)
    assert driver.wait() == 4, driver.said()
    assert not list(tmp_path.glob("attempts/*/*.json"))
    started = stopwatch()
    code, said = drivers.run(command(tmp_path, STREAMS), ("probe_here", ()))
    assert code == 3, said
    holds(tmp_path, "SIGTERM, three videos at once", stopwatch() - started)


def test_a_full_disk_ends_all_videos_at_once(drivers, command, holds, stopwatch, tmp_path):
    code, said = drivers.run(command(tmp_path, STREAMS), ("disk_full", (12,)))
    assert code == 1 and "No space left" in said.replace("\n", " "), said
    started = stopwatch()
    code, said = drivers.run(command(tmp_path, STREAMS), ("probe_here", ()))
    assert code == 3, said
    holds(tmp_path, "disk full, three videos at once", stopwatch() - started)
