"""A child of the warm process is as good as a fresh interpreter; this module is its command."""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.warm import WarmServer

ME = "tests.test_warm"


def main(argv):
    """Say what this process is like, leave traces in it, and end as the last argument says."""
    found = {
        "argv": sys.argv[1:],
        "folder": os.getcwd(),
        "own": os.environ.get("OWN"),
        "input": sys.stdin.read(),
        "handled": signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL,
        "threads": threading.active_count(),
    }
    print(json.dumps(found), flush=True)
    os.environ["OWN"] = "left behind"
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    atexit.register(print, "at exit")
    if argv[-1] == "thread":
        threading.Timer(0.1, print, ["thread"]).start()
    if argv[-1] == "sleep":
        time.sleep(600)
    if argv[-1] == "raise":
        raise ValueError("as asked")
    if argv[-1] == "words":
        sys.exit("some words")
    return 3


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One of its own: this module imports no torch."""
    server = WarmServer(tmp_path_factory.mktemp("server"))
    yield server
    server.close()


def test_arguments_environment_folder_and_outputs_are_its_own(server, tmp_path):
    for own in ("first", "second"):
        done = server.run(ME, [own, "end"], cwd=tmp_path, env={"OWN": own})
        assert (done.returncode, done.stderr) == (3, "")
        said, last = done.stdout.splitlines()
        assert json.loads(said) == {
            "argv": [own, "end"], "folder": str(tmp_path), "own": own,
            "input": "", "handled": False, "threads": 1,
        }  # fmt: skip
        assert last == "at exit"


def test_the_environment_is_by_default_that_of_the_test(server, monkeypatch):
    monkeypatch.setenv("OWN", "of the test")
    assert '"own": "of the test"' in server.run(ME, ["end"]).stdout


@pytest.mark.parametrize(
    ("end", "code", "error"), [("raise", 1, "ValueError: as asked"), ("words", 1, "some words")]
)
def test_errors_end_it_as_they_end_an_interpreter(server, end, code, error):
    done = server.run(ME, [end])
    assert done.returncode == code
    assert done.stderr.splitlines()[-1] == error
    assert done.stdout.endswith("at exit\n")


def test_its_threads_are_waited_for(server):
    assert server.run(ME, ["thread"]).stdout.splitlines()[1:] == ["thread", "at exit"]


def test_several_run_at_once_and_can_be_killed(server):
    both = [server.start(ME, [name, "sleep"]) for name in ("first", "second")]
    until = time.monotonic() + 30
    while not all("argv" in process.said() for process in both):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert [process.poll() for process in both] == [None, None]
    for process, name in zip(both, ("first", "second"), strict=True):
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == process.returncode == -signal.SIGKILL
        assert name in process.said()


def test_one_that_takes_too_long_is_killed(server):
    with pytest.raises(subprocess.TimeoutExpired):
        server.run(ME, ["sleep"], timeout=0.2)
    assert server.started[-1].wait(30) == -signal.SIGKILL


def test_a_module_that_cannot_be_imported_is_named(tmp_path):
    server = WarmServer(tmp_path)
    with pytest.raises(RuntimeError, match=r"No module named 'jobs\.nothing'"):
        server.run("jobs.nothing", [])
