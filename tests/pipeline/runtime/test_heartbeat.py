"""The heartbeat of a run: what it tells, when it is written, and that it can do no harm."""

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.runtime import heartbeat
from pipeline.runtime.frame_counter import UnderWay, WorkerNews
from pipeline.runtime.heartbeat import Beat, Heartbeat, OpenVideo, Totals, read_beats
from pipeline.runtime.stop import Stopped
from pipeline.storage import files as storage
from pipeline.storage.errors import StorageError

TOKEN = "https://user:secret@cams/a.mp4"
NEWS = WorkerNews(
    100,
    4.0,
    [UnderWay("a w0of2", "host:7", 60, 2.4, 1.5), UnderWay("gone", "host:8", 9, 0.3, 90.0)],
)


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(heartbeat, "FIRST_S", 0.01)
    monkeypatch.setattr(heartbeat, "EVERY_S", 0.01)


class Written:
    """Counts the writes of heartbeats, so that a test can wait for the next."""

    def __init__(self, monkeypatch):
        self.count = threading.Semaphore(0)
        write = storage.write_atomic

        def counted(uri, data):
            write(uri, data)
            self.count.release()

        monkeypatch.setattr(storage, "write_atomic", counted)

    def wait(self, times=1):
        for _ in range(times):
            assert self.count.acquire(timeout=30)


@pytest.fixture
def written(fast, monkeypatch):
    return Written(monkeypatch)


def make(output, news=lambda: NEWS, warn=pytest.fail, run="r1"):
    videos = {"a": OpenVideo(TOKEN, 1000, "parallel")}
    return Heartbeat(
        str(output), run, lambda: Totals(found=3, planned=2), news, lambda: videos, warn
    )


def beat(run="r1", age_s=0.0, **changes):
    heard = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat()
    made = Beat(run, "host", 1, heard, heard, 10.0, "running", "", Totals(), [(0.0, 0, 0.0)], [])
    return replace(made, **changes)


def test_it_tells_where_the_workers_are_and_is_gone_after_a_good_end(tmp_path, written):
    with make(tmp_path):
        written.wait(2)
        (found,) = read_beats(str(tmp_path))
    assert found.totals == Totals(found=3, planned=2)
    (place,) = found.under_way  # what has a result already is left out
    assert (place.video_id, place.window, place.mode) == ("a", "w0of2", "parallel")
    assert (place.worker, place.frame, place.frames, place.second) == ("host:7", 60, 1000, 2.4)
    assert place.silent_s == 1.5
    assert "secret" not in place.path
    assert found.age_s < 60
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("state", ["stopped", "ended"])
def test_another_end_stays_with_its_reason(tmp_path, written, state):
    with make(tmp_path) as heart:
        written.wait()
        heart.left(state, "SIGTERM")
    (found,) = read_beats(str(tmp_path))
    assert (found.state, found.message, found.under_way) == (state, "SIGTERM", [])


def test_an_error_is_told_with_secrets_masked(tmp_path, written):
    def run():
        with make(tmp_path):
            written.wait()
            raise StorageError(f"cannot read {TOKEN}")

    with pytest.raises(StorageError):
        run()
    (found,) = read_beats(str(tmp_path))
    assert found.state == "failed"
    assert found.message.startswith("cannot read https://")
    assert "secret" not in found.message


def test_a_signal_is_told_as_one(tmp_path, written):
    def run():
        with make(tmp_path):
            written.wait()
            raise Stopped("SIGINT")

    with pytest.raises(Stopped):
        run()
    (found,) = read_beats(str(tmp_path))
    assert (found.state, found.message) == ("stopped", "SIGINT")


def test_a_short_run_writes_nothing(tmp_path):
    with pytest.raises(StorageError), make(tmp_path):
        raise StorageError("no disk")
    assert not list(tmp_path.iterdir())


def test_what_fails_is_told_once_and_the_run_goes_on(tmp_path, written):
    (tmp_path / "progress").touch()  # a file where the folder should be
    said, asked = [], threading.Semaphore(0)

    def news():
        asked.release()
        return NEWS

    with make(tmp_path, news, said.append):
        for _ in range(3):
            assert asked.acquire(timeout=30)
    assert len(said) == 1
    assert "vsdmot status may be behind: cannot" in said[0]


def test_a_counter_that_cannot_be_asked_keeps_no_beat_from_being_written(tmp_path, written):
    def news():
        raise RuntimeError("the actor is gone")

    said = []
    with make(tmp_path, news, said.append):
        written.wait(2)
        (found,) = read_beats(str(tmp_path))
    assert (found.totals.found, found.under_way, found.samples) == (3, [], [])
    assert said == ["vsdmot status may be behind: the actor is gone"]


def test_a_store_that_hangs_keeps_no_run_from_ending(tmp_path, fast, monkeypatch):
    hangs, over = threading.Event(), threading.Event()

    def write(uri, data):
        hangs.set()
        over.wait(60)

    monkeypatch.setattr(storage, "write_atomic", write)
    monkeypatch.setattr(heartbeat, "_LEAVE_S", 0.1)
    with make(tmp_path):
        assert hangs.wait(30)
    over.set()


def test_a_counter_that_begins_anew_is_added_to_the_one_before(tmp_path, written):
    told = iter([(10, 1.0), (30, 3.0), (5, 0.5), (8, 0.8)])
    last = [(8, 0.8)]

    def news():
        return WorkerNews(*next(told, last[0]))

    with make(tmp_path, news):
        written.wait(5)
        (found,) = read_beats(str(tmp_path))
    assert [frames for _, frames, _ in found.samples][:4] == [10, 30, 35, 38]
    assert [seconds for *_, seconds in found.samples][:4] == [1.0, 3.0, 3.5, 3.8]
    times = [second for second, *_ in found.samples]
    assert times == sorted(times)


def test_samples_are_of_the_last_minutes(tmp_path, written, monkeypatch):
    monkeypatch.setattr(heartbeat, "_KEPT_S", 0.0)
    with make(tmp_path):
        written.wait(4)
        (found,) = read_beats(str(tmp_path))
    assert len(found.samples) == 1


def test_the_last_words_of_other_runs_are_removed_but_not_those_of_live_ones(tmp_path, written):
    others = [
        beat("live", 5), beat("gone", 7200), beat("stopped", 5, state="stopped"),
    ]  # fmt: skip
    for other in others:
        storage.write_atomic(f"{tmp_path}/progress/{other.run}.json", other.encode())
        written.wait()
    (tmp_path / "progress" / "newer.json").write_text(json.dumps({"format": 99}))
    (tmp_path / "progress" / "broken.json").write_text("{")
    with make(tmp_path):
        written.wait()
        assert [found.run for found in read_beats(str(tmp_path))] == ["live", "r1"]
    assert [found.run for found in read_beats(str(tmp_path))] == ["live"]
