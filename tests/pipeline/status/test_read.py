"""How far a run is, from outputs in every state a run can leave."""

import http.server
import json
import threading
import time

import pytest
from s3fs import S3FileSystem

from pipeline.compaction.config import CompactConfig
from pipeline.compaction.run import compact
from pipeline.report.run_tables import NoRunError
from pipeline.runtime.heartbeat import Totals, VideoPlace
from pipeline.runtime.stop import StopRequest
from pipeline.speed.queries.made_run import make_run
from pipeline.status.lines import duration, status_lines
from pipeline.status.read import read_status
from pipeline.storage import files as storage
from pipeline.storage.errors import StorageError
from tests.pipeline.report.runs import Clip, write_run
from tests.pipeline.runtime.test_heartbeat import beat
from tests.pipeline.status.test_estimate import samples


def put(output, *beats):
    for each in beats:
        storage.write_atomic(f"{output}/progress/{each.run}.json", each.encode())


def said(status):
    return "\n".join(status_lines(status))


@pytest.fixture
def output(tmp_path):
    """Two videos done, one dead, two of five left."""
    clips = [Clip("a.mp4", made=False), Clip("b.mp4", made=False)]
    return write_run(tmp_path, clips, listed=5, dead=["notes.txt"])


UNDER_WAY = [
    VideoPlace("c", "yard/c.mp4", "resume", "", "gpu1:7", 4000, 9000, 160.0, 2.0),
    VideoPlace("d", "gate/d.mp4", "parallel", "w3of8", "gpu2:9", 70, 20_000, 2.8, 95.0),
    VideoPlace("d", "gate/d.mp4", "parallel", "w4of8", "gpu3:9", 80, 20_000, 3.2, 1.0),
]


def test_a_run_under_way(output):
    record = json.loads((output / "run.json").read_text())
    record["config"]["split"] = {"seconds": 60.0}
    (output / "run.json").write_text(json.dumps(record))
    totals = Totals(
        found=9, whole=True, planned=8, frames=4150, frames_expected=29_150, dead=1, unread=1
    )
    put(output, beat(samples=samples(50, 40, 60), totals=totals, under_way=UNDER_WAY, age_s=3))
    status = read_status(str(output))
    assert (status.state, status.files, status.done, status.dead) == ("running", 9, 2, 1)
    assert status.waiting == 9 - 2 - 1 - 2 - 1  # two videos under way, one not read
    assert (status.rate.frames_s, status.rate.video_s) == (50, 2)
    assert status.left.likely_s == pytest.approx(25_000 / 50)
    assert status.left.least_s < status.left.likely_s < status.left.most_s
    assert [video.part for video in status.under_way] == [
        "window 4 of 8",
        "part 3",
        "window 5 of 8",
    ]
    assert status.under_way[0].silent_s >= 98
    text = said(status)
    for line in (
        "  done       2 (22.2%)",
        "  waiting    3",
        "  rate       50.0 frames/s, 2.0 s of video a second, over the last 3 min 0 s",
        "  time left  about 8 min 20 s, 6 min 57 s to 10 min 25 s by the last minutes' rates",
        "yard/c.mp4: frame 4,000 of 9,000, at 160.0 s, part 3; worker gpu1:7, heard of 5 s ago",
        "gate/d.mp4: frame 70, at 2.8 s, window 4 of 8; worker gpu2:9, not heard of for 1 min 38 s",
        "notes.txt: input: not a video: notes.txt",
        "Open the file in a player.",
        "  not read   1, because storage failed; the next run tries again",
    ):
        assert line in text


def test_files_that_are_still_being_found(output):
    put(output, beat(totals=Totals(found=3), samples=[]))
    status = read_status(str(output))
    assert (status.state, status.files, status.whole) == ("listing", 3, False)
    assert "going through the archive" in said(status)
    totals = Totals(found=3, planned=2, frames_expected=100, frames=50)
    put(output, beat(totals=totals, samples=samples(5, 5, 5)))
    text = said(read_status(str(output)))
    assert "  files      3 so far" in text
    assert "time left  at least 10 s, 10 s to 10 s by the last minutes' rates, because more" in text


def test_a_driver_that_says_nothing_more(output):
    put(output, beat(age_s=600, under_way=UNDER_WAY, totals=Totals(found=5, whole=True, planned=5)))
    status = read_status(str(output))
    assert (status.state, status.rate, status.left) == ("silent", None, None)
    assert status.over
    text = said(status)
    assert "its driver was last heard of 10 min 0 s ago" in text
    assert "run the same command again" in text
    assert "under way when it was last heard of" in text


def test_a_driver_whose_clock_is_behind_lives_if_it_is_heard_again(output, monkeypatch):
    totals = Totals(found=5, whole=True, planned=5)
    place = UNDER_WAY[2]
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        put(output, beat(age_s=600, totals=totals, under_way=[place]))

    monkeypatch.setattr(time, "sleep", sleep)
    put(output, beat("gone", age_s=90), beat(age_s=610, totals=totals))
    status = read_status(str(output), listen_s=15)
    assert (status.state, status.other_drivers, waits) == ("running", 0, [15])
    assert status.driver.run == "r1" and status.driver.heard_s < 5
    assert status.driver.behind_s == pytest.approx(600, abs=5)
    assert status.under_way[0].silent_s < 10
    assert "its clock  is 10 min 0 s behind that of this machine" in said(status)


def test_a_driver_that_is_not_heard_again_is_silent(output, monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    put(output, beat(age_s=600))
    assert read_status(str(output), listen_s=15).state == "silent"
    put(output, beat(age_s=90_000))  # nobody waits for what ended yesterday
    assert read_status(str(output), listen_s=15).state == "silent"
    put(output, beat(age_s=5))  # nor beside a driver that lives
    assert read_status(str(output), listen_s=15).driver.behind_s == 0
    assert waits == [15]


def test_a_run_that_ends_well_while_it_is_listened_to(output, monkeypatch):
    put(output, beat(age_s=600))
    monkeypatch.setattr(time, "sleep", lambda _: (output / "progress" / "r1.json").unlink())
    status = read_status(str(output), listen_s=15)
    assert (status.state, status.driver) == ("incomplete", None)


@pytest.mark.parametrize(
    ("state", "message", "words"),
    [
        ("stopped", "SIGTERM", "stopped by SIGTERM 5 s ago; run the same command again"),
        ("failed", "cannot write x: full", "failed 5 s ago: cannot write x: full; then run"),
        ("ended", "", "no run is under way, and not all is done; run the same command again"),
    ],
)
def test_a_run_that_has_ended_early(output, state, message, words):
    put(output, beat(state=state, message=message, age_s=5))
    assert words in said(read_status(str(output)))


def test_without_a_heartbeat_the_tables_say_it(tmp_path, output):
    status = read_status(str(output))
    assert (status.state, status.waiting, status.driver) == ("incomplete", 2, None)
    whole = write_run(tmp_path / "whole", [Clip("a.mp4", made=False)])
    assert read_status(str(whole)).state == "finished"
    for last in (beat(state="failed", message="MLflow"), beat(age_s=99, totals=Totals(1, True))):
        put(whole, last)  # what is done is done
        assert read_status(str(whole)).state == "finished"
    begun = write_run(tmp_path / "begun", [], listed=-1)
    status = read_status(str(begun))
    assert (status.state, status.files, status.waiting) == ("incomplete", None, None)
    assert "  files      not counted yet" in said(status)


def test_of_two_drivers_the_living_one_counts(output):
    alive = Totals(found=5, planned=5, whole=True)
    put(output, beat("r1", age_s=40, totals=alive), beat("r2", age_s=4, state="stopped"))
    status = read_status(str(output))
    assert (status.state, status.driver.run, status.other_drivers) == ("running", "r1", 0)
    put(output, beat("r3", age_s=2, totals=alive))
    status = read_status(str(output))
    assert (status.driver.run, status.other_drivers) == ("r3", 1)
    assert "1 more on the same output" in said(status)


def test_no_row_is_read_of_what_is_done(output):
    for number in range(50):
        (output / "videos" / f"more-{number}.parquet").touch()  # no Parquet at all
    (output / "dead_letters" / "more-7.parquet").touch()  # its row counts
    status = read_status(str(output))
    assert (status.done, status.dead) == (52, 1)
    for number in range(50):
        (output / "dead_letters" / f"x-{number}.parquet").touch()
    assert len(read_status(str(output), letters=1).letters) == 1
    assert "dead letters, 50 more in dead_letters/" in said(read_status(str(output), letters=1))


def test_beside_a_compaction(tmp_path):
    videos = make_run(tmp_path, 6, seed=1).videos
    assert read_status(str(tmp_path)).done == 6
    compact(CompactConfig(str(tmp_path), keep_s=0.0), StopRequest())
    assert read_status(str(tmp_path)).done == 6
    merged = tmp_path / "videos" / f"{videos[0]}.parquet"
    merged.touch()  # not removed yet
    (tmp_path / "dead_letters").mkdir(exist_ok=True)
    (tmp_path / "dead_letters" / f"{videos[1]}.parquet").touch()
    status = read_status(str(tmp_path))
    assert (status.done, status.dead) == (6, 0)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(NoRunError, match=r"no run\.json here"):
        read_status(str(tmp_path))
    (tmp_path / "run.json").write_text('{"job": "track", "schema_version": 1}')
    with pytest.raises(NoRunError, match="schema version 1"):
        read_status(str(tmp_path))


def test_a_bucket_without_rights(monkeypatch):
    class Forbidden(http.server.BaseHTTPRequestHandler):
        def answer(self):
            body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = answer

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forbidden)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(StorageError, match="credentials in use may list, read and write"):
            read_status("s3://results/run")
    finally:
        server.shutdown()
        server.server_close()
        S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599.6, "1 h 0 min"), (90_000, "1 d 1 h")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words
