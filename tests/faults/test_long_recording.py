"""A recording of twenty minutes in all three modes, two of which lose their process on the way."""

import os
import signal
import time
from collections import Counter

import pyarrow.parquet as pq
import pytest

from tests.faults import invariant
from tests.faults.test_parts import wait_for, worker_of
from tests.videos import write_video

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RATE = 2  # few frames a second, so that the tests spend their time on seconds of video
MINUTES = 20
FRAMES = MINUTES * 60 * RATE
WINDOWS = 5
PARALLEL = "split.mode=parallel", f"split.seconds={MINUTES * 60 // WINDOWS}"
RESUME = "split.mode=resume", "split.seconds=60"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recording")
    write_video(folder / "long.mp4", frames=FRAMES, rate=RATE)
    return folder


@pytest.fixture(scope="module")
def long_command(command, source):
    return lambda output, *more: command(output, *more, source=source)


@pytest.fixture(scope="module")
def undisturbed(drivers, long_command, tmp_path_factory):
    """Rows of a run in one process that nothing disturbs, by its settings."""
    known = {}

    def rows(*settings):
        if settings not in known:
            output = tmp_path_factory.mktemp("undisturbed")
            code, said = drivers.run(long_command(output, *settings), ("probe_here", ()))
            assert code == 0, said
            known[settings] = invariant.read(str(output))
        return known[settings]

    return rows


@pytest.fixture(scope="module")
def whole(undisturbed):
    """Rows of one pass."""
    return undisturbed("split.mode=video")


def video_row(rows):
    (row,) = rows["videos"]
    return row


def in_order(rows):
    return sorted(rows, key=lambda row: (row["frame_index"], row.get("track_id", 0)))


def test_twenty_minutes_in_mode_video(whole):
    row = video_row(whole)
    assert (row["split_mode"], row["segments"], row["status"]) == ("video", 1, "ok")
    assert row["frames_decoded"] == row["frames_tracked"] == FRAMES
    assert row["video_s"] >= MINUTES * 60 - 1
    assert [frame["frame_index"] for frame in in_order(whole["frames"])] == list(range(FRAMES))
    assert len(whole["tracks"]) > FRAMES and row["num_tracks"] > 1


def test_twenty_minutes_in_mode_resume(drivers, long_command, whole, holds, stopwatch, tmp_path):
    """Killed while part 10 of 19 is written; the run after it goes on from part 9."""
    output = tmp_path / "out"
    argv = long_command(output, *RESUME)
    code, said = drivers.run(argv, ("kill_at", ("10.state", 1)))
    assert code == -signal.SIGKILL, said
    assert len(list(output.glob("parts/*/*.state.safetensors"))) == 10
    (last,) = output.glob("parts/*/9.state.safetensors")
    written, started = last.stat().st_mtime_ns, stopwatch()
    driver = drivers.start(argv, ("probe_here", ()))
    while driver.poll() is None:
        if last.exists():  # it would be written anew if the video were tracked from its start
            assert last.stat().st_mtime_ns == written
        time.sleep(0.01)
    assert driver.wait() == 0, driver.said()
    holds(output, "SIGKILL before 10.state", stopwatch() - started, whole)
    found = invariant.read(str(output))
    for table in ("tracks", "frames"):
        assert in_order(found[table]) == in_order(whole[table])
    row = video_row(found)
    assert (row["split_mode"], row["segments"], row["repairs"]) == ("resume", 1, None)
    assert not list(output.glob("parts/*/*"))


def test_twenty_minutes_in_mode_parallel(
    drivers, long_command, undisturbed, whole, holds, stopwatch, tmp_path
):
    """Two workers on Ray, one of which is killed after the first of five windows."""
    expected = undisturbed(*PARALLEL)
    output = tmp_path / "out"
    driver = drivers.start([*long_command(output, *PARALLEL), "cluster.workers=2"])
    wait_for(lambda: list(output.glob("parts/*/*.json")), driver)
    started = stopwatch()
    os.kill(worker_of(driver).pid, signal.SIGKILL)
    assert driver.wait(timeout=400) == 0, driver.said()
    seconds = stopwatch() - started
    holds(output, "SIGKILL of ray::MapWorker", seconds, expected)

    found = invariant.read(str(output))
    clock = [
        [(row["frame_index"], row["time_s"]) for row in in_order(rows["frames"])]
        for rows in (found, whole)
    ]
    assert clock[0] == clock[1]
    assert not duplicated(found["tracks"], "frame_index", "track_id")
    counts = Counter(row["frame_index"] for row in found["tracks"])
    assert all(row["num_tracks"] == counts[row["frame_index"]] for row in found["frames"])
    times = dict(clock[0])
    assert all(row["time_s"] == times[row["frame_index"]] for row in found["tracks"])

    row = video_row(found)
    assert (row["split_mode"], row["segments"], row["seams"]) == ("parallel", WINDOWS, WINDOWS - 1)
    assert (row["frames_decoded"], row["frames_tracked"]) == (FRAMES, FRAMES)
    assert (row["status"], row["repairs"]) == ("ok", None)
    (path,) = output.glob("seams/*.parquet")
    outcomes = Counter(pq.read_table(path)["outcome"].to_pylist())
    assert outcomes["matched"] == row["seam_matches"] > 0
    assert not list(output.glob("parts/*/*"))


def duplicated(rows, *names):
    counts = Counter(tuple(row[name] for name in names) for row in rows)
    return [key for key, count in counts.items() if count > 1]
