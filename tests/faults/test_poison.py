"""Videos that kill, hang or outlast their worker, and how they are tried again."""

import multiprocessing
import signal

import pyarrow.parquet as pq
import pytest

from pipeline.archive.dead_letters import settle, write_dead_letter
from pipeline.archive.survey import survey
from pipeline.storage import files as storage
from pipeline.storage.schema import table_uri
from pipeline.tracking.attempts import Ledger
from pipeline.video import headers
from pipeline.video.headers import HeaderReader
from pipeline.video.limits import Limits
from pipeline.video.probe import ProbeError
from tests.faults import dying_headers
from tests.videos import write_video


def letter(output, name):
    path = next(output.glob(f"dead_letters/{name}-*.parquet"))
    return pq.read_table(path).to_pylist()[0]


def test_segfault_is_poison_and_can_be_retried(drivers, command, holds, stopwatch, tmp_path):
    argv = command(tmp_path)
    fault = ("die_on", ("b.mkv", signal.SIGSEGV))
    for _ in range(3):
        code, said = drivers.run(argv, ("probe_here", ()), fault)
        assert code == -signal.SIGSEGV, said
    code, said = drivers.run(argv, ("probe_here", ()), fault)  # not opened again: this one ends
    assert code == 3, said
    row = letter(tmp_path, "b")
    assert (row["stage"], row["kind"], row["attempts"]) == ("track", "poison", 3)
    assert "limits.max_attempts is 3" in row["message"]
    assert len(storage.list_stems(f"{tmp_path}/videos")) == 2
    # Without the crash it is a video like any other, once it is asked for.
    started = stopwatch()
    code, said = drivers.run(argv, ("probe_here", ()))
    assert code == 3 and list(tmp_path.glob("dead_letters/b-*")), said
    code, said = drivers.run([*argv, "retry_dead_letters=true"], ("probe_here", ()))
    assert code == 3, said
    holds(tmp_path, "SIGSEGV, 3 times", stopwatch() - started)


def test_hanging_decoder_meets_its_deadline(drivers, command, holds, stopwatch, tmp_path):
    argv = command(tmp_path, "limits.deadline_base_s=1", "limits.deadline_frame_s=0.001")
    code, said = drivers.run(argv, ("probe_here", ()), ("hang_on", ("a.mp4",)))
    assert code == 3, said
    row = letter(tmp_path, "a")
    assert row["kind"] == "deadline"
    assert "waiting for the decoder" in row["message"]
    assert "limits.deadline_base_s" in row["message"]
    started = stopwatch()
    code, said = drivers.run([*command(tmp_path), "retry_dead_letters=true"], ("probe_here", ()))
    assert code == 3, said
    holds(tmp_path, "decoder hangs", stopwatch() - started)


def test_watchdog_ends_a_job_in_which_nothing_moves(drivers, command, holds, stopwatch, tmp_path):
    # The longest video is tracked first. So nothing but the weights can be what is waited for
    # earlier, and on a busy machine ten seconds are enough for them.
    argv = command(tmp_path, "limits.watchdog_s=10")
    code, said = drivers.run(argv, ("probe_here", ()), ("hang_model_on", ("cut.mp4",)))
    assert code == 1, said
    said = said.replace("\n", " ")
    assert "no progress for 10 s (limits.watchdog_s); the run waits for cut.mp4" in said
    started = stopwatch()
    code, said = drivers.run(command(tmp_path), ("probe_here", ()))
    assert code == 3, said
    holds(tmp_path, "model hangs", stopwatch() - started)


def test_ledger_counts_what_kills_not_what_is_killed(tmp_path):
    output = str(tmp_path)
    this, driver_in_process = Ledger(output, "a", False), Ledger(output, "b", True)
    other = Ledger(output, "c", False)

    def deaths(ledger):
        return ledger.deaths(ledger.entries("v"))

    this.begin("v")
    assert deaths(this) == 1  # this driver lives, so its worker died
    assert deaths(other) == 0  # that run may have ended for any reason
    driver_in_process.begin("v")
    assert deaths(this) == 2  # a video kills the run that it is tracked in
    other.begin("v")
    other.begin("v")
    assert deaths(this) == 2
    other.begin("v")
    assert deaths(this) == 3
    this.forget(["v"], run="c")
    assert deaths(this) == 2
    name = this.begin("v")
    this.end("v", name)
    this.end("v", name)  # gone already: no error
    assert deaths(this) == 2
    this.forget(["v"])
    assert this.entries("v") == set()


@pytest.mark.parametrize("first", ["videos", "dead_letters"])
def test_of_a_row_and_a_dead_letter_the_row_counts(tmp_path, first):
    """Two drivers came to different ends; whoever is second sees both."""
    output = str(tmp_path)

    def bury():
        write_dead_letter(
            output,
            video_id="v",
            uri="/v.mp4",
            relative_path="v.mp4",
            stage="track",
            kind="deadline",
            message="late",
        )

    def commit():
        storage.create_if_absent(table_uri(output, "videos", "v"), b"row")

    for publish in (commit, bury) if first == "videos" else (bury, commit):
        publish()
        settle(output, "v")
    assert storage.list_stems(f"{output}/videos") == {"v"}
    assert storage.list_stems(f"{output}/dead_letters") == set()
    bury_alone = "w"
    write_dead_letter(
        output,
        video_id=bury_alone,
        uri="/w.mp4",
        relative_path="w.mp4",
        stage="track",
        kind="poison",
        message="boom",
    )
    settle(output, bury_alone)
    assert storage.list_stems(f"{output}/dead_letters") == {"w"}


def test_header_that_kills_its_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(headers, "_serve", dying_headers.serve)
    for name in ("a", "b", "crash", "hang"):
        write_video(tmp_path / f"{name}.mp4", frames=3)
    files = list(storage.list_videos(str(tmp_path)))
    with HeaderReader(4, Limits(), 5.0) as reader:
        found = {item.relative_path: item for item in survey(files, 4, reader.probe)}
    assert found["crash.mp4"].kind == "poison"
    assert "ended its process (SIGSEGV)" in found["crash.mp4"].error
    assert found["hang.mp4"].kind == "deadline"
    assert {found[name].frames_expected for name in ("a.mp4", "b.mp4")} == {3}
    assert not multiprocessing.active_children()


def test_header_reader_says_what_probe_says(tmp_path):
    (tmp_path / "no.mp4").write_text("no video")
    with HeaderReader(2, Limits(), 60.0) as reader, pytest.raises(ProbeError, match="not a video"):
        reader.probe(next(storage.list_videos(str(tmp_path))))
