"""Checks that crash, hang or fail become problems, and the others go on."""

import os
import signal
import time

from pipeline.doctor.config import DoctorConfig
from pipeline.doctor.finding import ok
from pipeline.doctor.running import CHECKS, run_checks
from pipeline.doctor.stores import Unreachable


def good(config):
    print("libraries print", flush=True)
    return [ok("good", "found at https://me:my-password@host"), ok("also", "found")]


def hanging(config):
    time.sleep(600)
    return []


def crashing(config):
    os.write(2, b"the last words\n")
    os.kill(os.getpid(), signal.SIGSEGV)
    return []


def failing(config):
    yield ok("before", "found")
    raise OSError("no such thing at http://me:my-password@host")


def check_unreachable(config):
    raise Unreachable("nothing answers", "start it")


def test_what_goes_wrong_with_a_check_is_a_problem_and_the_others_go_on(capfd):
    checks = {
        "crashing": crashing, "hanging": hanging, "failing": failing,
        "unreachable": check_unreachable, "good": good,
    }  # fmt: skip
    found = list(run_checks(DoctorConfig(seconds=1.5), checks))
    assert [(f.name, f.state) for f in found] == [
        ("crashing", "problem"), ("hanging", "problem"), ("before", "ok"), ("failing", "problem"),
        ("unreachable", "problem"), ("good", "ok"), ("also", "ok"),
    ]  # fmt: skip
    by_name = {f.name: f.found for f in found}
    assert "SIGSEGV" in by_name["crashing"]
    assert "no answer within 1.5 s" in by_name["hanging"]
    assert "OSError: no such thing" in by_name["failing"]
    assert "my-password" not in by_name["failing"] + by_name["good"]
    assert by_name["unreachable"] == "nothing answers"
    assert "libraries print" not in capfd.readouterr().out


def test_every_check_can_be_named():
    assert list(CHECKS) == [check.__name__.removeprefix("check_") for check in CHECKS.values()]
