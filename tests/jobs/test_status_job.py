"""`vsdmot status`: what it prints, its exit codes, and a real run seen from beside it."""

import json
import threading
import time

import pytest

from jobs.__main__ import main
from jobs.track import main as track
from pipeline.runtime import heartbeat, reports
from pipeline.runtime.heartbeat import Totals
from pipeline.status.read import LISTEN_S, read_status
from pipeline.tracking import track_video
from tests.pipeline.report.runs import Clip, write_run
from tests.pipeline.runtime.test_heartbeat import beat
from tests.videos import write_video


def test_a_finished_run_in_words_and_as_json(tmp_path, capsys):
    output = write_run(tmp_path, [Clip("a.mp4", made=False)], dead=["b [x].txt"])
    assert main(["status", str(output)]) == 0
    text = capsys.readouterr().out
    assert f"{output}: finished\n" in text
    assert "  b [x].txt: input: not a video: b [x].txt\n" in text
    assert main(["status", str(output), "json=true", "watch=true"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["state"], values["done"], values["dead"]) == ("finished", 1, 1)
    assert values["letters"][0]["kind"] == "input"


def test_watching_ends_with_the_run(tmp_path, capsys, monkeypatch):
    output = write_run(tmp_path, [Clip("a.mp4", made=False)])
    running = beat(totals=Totals(found=1, planned=1, whole=True))
    (output / "progress").mkdir()
    path = output / "progress" / "r1.json"
    path.write_bytes(running.encode())
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        path.unlink()

    monkeypatch.setattr(time, "sleep", sleep)
    assert main(["status", str(output), "watch=true", "every_s=3", "json=true"]) == 0
    states = [json.loads(line)["state"] for line in capsys.readouterr().out.splitlines()]
    assert (states, waits) == (["running", "finished"], [3.0])


def test_a_silent_driver_is_listened_to(tmp_path, capsys, monkeypatch):
    output = write_run(tmp_path, [Clip("a.mp4", made=False)], listed=2)
    path = output / "progress" / "r1.json"
    path.parent.mkdir()
    path.write_bytes(beat(age_s=300).encode())
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        path.write_bytes(beat(age_s=290, totals=Totals(2, True, planned=2)).encode())

    monkeypatch.setattr(time, "sleep", sleep)
    assert main(["status", str(output)]) == 0
    text = capsys.readouterr().out
    assert f"{output}: under way" in text and "its clock  is 4 min 50 s behind" in text
    assert slept == [LISTEN_S]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["{folder}"], 2, "no run.json here"),
        (["{output}", "every_s=0"], 2, "every_s: 0.0 was given"),
        (["nowhere://x"], 1, "nowhere"),
    ],
)
def test_what_cannot_be_done_says_why(tmp_path, capsys, words, code, message):
    output = write_run(tmp_path, [Clip("a.mp4", made=False)])
    (tmp_path / "empty").mkdir()
    given = [word.format(folder=tmp_path / "empty", output=output) for word in words]
    with pytest.raises(SystemExit) as leaving:
        main(["status", *given])
    assert leaving.value.code == code
    assert message in capsys.readouterr().err


def test_a_real_run_seen_from_beside_it(tmp_path, weights, monkeypatch):
    """The first video stands still at its second window until it was seen there."""
    output, seen = str(tmp_path / "out"), []
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mp4", frames=24)
    write_video(tmp_path / "in" / "b.mp4", frames=8)
    monkeypatch.setattr(heartbeat, "FIRST_S", 0.05)
    monkeypatch.setattr(heartbeat, "EVERY_S", 0.05)
    monkeypatch.setattr(reports, "_EVERY_S", 0.0)
    stands, goes_on = threading.Event(), threading.Event()
    real, windows = track_video.window_rows, []

    def window_rows(*arguments):
        windows.append(1)
        if len(windows) == 2:
            stands.set()
            assert goes_on.wait(60)
        return real(*arguments)

    def look():
        assert stands.wait(60)
        deadline = time.monotonic() + 60
        while not seen and time.monotonic() < deadline:
            status = read_status(output)
            if [video.frame for video in status.under_way] == [8]:
                seen.append(status)
            time.sleep(0.02)
        goes_on.set()

    monkeypatch.setattr(track_video, "window_rows", window_rows)
    watcher = threading.Thread(target=look)
    watcher.start()
    given = f"input={tmp_path / 'in'}", f"output={output}", f"weights={weights}"
    assert track([*given, "mlflow.enabled=false", "report=false", "cluster.workers=0"]) == 0
    watcher.join()
    (status,) = seen
    assert (status.state, status.files, status.whole) == ("running", 2, True)
    assert (status.done, status.dead, status.waiting) == (0, 0, 1)
    (video,) = status.under_way
    assert (video.path, video.frames, video.second) == (
        "a.mp4",
        24,
        pytest.approx(7 / 25, abs=0.01),
    )
    assert status.driver.host in video.worker
    after = read_status(output)
    assert (after.state, after.done, after.driver) == ("finished", 2, None)
    assert not list((tmp_path / "out").rglob("progress/*"))
