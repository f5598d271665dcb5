"""`vsdmot doctor`: what it prints and its exit codes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from jobs.__main__ import main
from tests import ROOT
from tests.videos import write_video


def test_findings_as_json_and_the_exit_code_without_problems(tmp_path, capsys):
    write_video(tmp_path / "a.mp4", frames=2)
    assert main(["doctor", str(tmp_path), "only=[input,ports]", "json=true"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[0] == {
        "name": "input", "state": "ok", "found": "1 videos listed, one of them read", "remedy": "",
    }  # fmt: skip


def test_a_problem_has_its_remedy_and_an_exit_code(tmp_path, capsys):
    assert main(["doctor", str(tmp_path / "none"), "only=[input,codecs]"]) == 1
    lines = capsys.readouterr().out.splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("PROBLEM input"))
    assert str(tmp_path / "none") in lines[place]
    assert "→ check the spelling" in lines[place + 1]
    assert lines[-1].startswith("1 problems, 0 warnings")


def test_a_check_that_there_is_not(capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["doctor", "only=[everything]"])
    assert leaving.value.code == 2
    assert "there are packages, machine, gpu" in capsys.readouterr().err


def test_ctrl_c_ends_it_without_a_traceback(tmp_path):
    """While a store does not answer; a terminal sends the signal to all processes of the job."""
    said = tmp_path / "said.txt"
    with socket.create_server(("127.0.0.1", 0)) as silent, said.open("w") as file:
        store = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key",
        }  # fmt: skip
        job = subprocess.Popen(
            [sys.executable, "-u", "-m", "jobs.doctor", "s3://cams/a", "only=[ports,input]"],
            cwd=ROOT, stdout=file, stderr=file, env=os.environ | store, start_new_session=True,
            # Whoever runs the tests in the background of a shell has Ctrl-C ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        while "ports" not in said.read_text() and job.poll() is None:
            time.sleep(0.02)
        os.killpg(job.pid, signal.SIGINT)
        assert job.wait(60) == 4
    assert "stopped before all checks were made" in said.read_text()
    assert "Traceback" not in said.read_text()


@pytest.mark.slow
def test_all_checks_on_this_machine(weights, tmp_path, capsys):
    """With a cluster that starts, an archive, an output and a log in a file."""
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.mp4", frames=2)
    words = [str(tmp_path / "in"), str(tmp_path / "out"), f"weights={weights}"]
    log = f"mlflow.uri=sqlite:///{tmp_path}/mlflow.db"
    code = main(["doctor", *words, log, "json=true"])
    found = {line["name"]: line for line in json.loads(capsys.readouterr().out)}
    assert code == 0, [line for line in found.values() if line["state"] == "problem"]
    assert "a cluster started here ran a task" in found["ray"]["found"]
    assert {found[name]["state"] for name in ("weights", "input", "output", "ray")} == {"ok"}
    assert not (tmp_path / "out").exists()
