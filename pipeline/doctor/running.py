"""Runs checks, each in a process of its own: one that crashes or hangs becomes a problem."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from pipeline.doctor.codecs import check_codecs
from pipeline.doctor.config import DoctorConfig
from pipeline.doctor.finding import Check, Finding, problem
from pipeline.doctor.folders import check_folders
from pipeline.doctor.hardware import check_gpu, check_machine
from pipeline.doctor.packages import check_packages
from pipeline.doctor.services import check_mlflow, check_ports, check_ray
from pipeline.doctor.stores import Unreachable, check_input, check_output
from pipeline.doctor.student import check_student
from pipeline.storage.errors import describe_error
from pipeline.storage.secrets import mask_secrets

CHECKS: Mapping[str, Check] = {
    "packages": check_packages,
    "machine": check_machine,
    "gpu": check_gpu,
    "codecs": check_codecs,
    "student": check_student,
    "folders": check_folders,
    "input": check_input,
    "output": check_output,
    "ray": check_ray,
    "mlflow": check_mlflow,
    "ports": check_ports,
}
"""All checks by name, in the order in which they are told."""

_AT_ONCE = 2
_START_S = 120.0  # for a process to start
_END_S = 10.0  # for a process to end after its answer: Ray stops its own processes
_POLL_S = 0.1  # a wait looks this often whether it is to stop
_LAST_WORDS = 300


def run_checks(config: DoctorConfig, checks: Mapping[str, Check] = CHECKS) -> Iterator[Finding]:
    """Run checks, some at once; yields findings in the order of the checks.

    Args:
        config: What to look at, and the seconds that a check may take.
        checks: Functions of a module, by name.
    """
    stop = threading.Event()

    def run(name: str) -> list[Finding]:
        return run_check(name, checks[name], config, stop)

    with ThreadPoolExecutor(_AT_ONCE, initializer=_keep_from_ctrl_c) as pool:
        try:
            for found in pool.map(run, checks):
                yield from found
        finally:
            # After Ctrl-C, checks that have not begun are left out, and the others are ended.
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def run_check(
    name: str, check: Check, config: DoctorConfig, stop: threading.Event | None = None
) -> list[Finding]:
    """Run one check in a process; what goes wrong with it becomes a problem.

    Args:
        name: Of the check.
        check: A function of a module.
        config: What to look at, and the seconds that a check may take.
        stop: Ends the check when it is set; then nothing is found.
    """
    stop = stop or threading.Event()
    # Spawned, because libraries may have threads, whose locks a fork would copy.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said.txt"
        process = context.Process(target=_serve, args=(theirs, said, check, config))
        process.start()
        theirs.close()
        patience_s = 0.0
        try:
            # The time of a check does not include the start of its process.
            for seconds in (_START_S, config.seconds):
                if not _answered(ours, seconds, stop):
                    return [] if stop.is_set() else [_hung(name, seconds)]
                found: list[Finding] = ours.recv()
            patience_s = _END_S
            return found
        except EOFError:
            process.join()
            return [_crashed(name, process.exitcode, said)]
        finally:
            if stop.is_set():
                process.terminate()  # so that Ray can end its own processes
                patience_s = _END_S
            process.join(patience_s)
            process.kill()
            process.join()
            ours.close()


def _keep_from_ctrl_c() -> None:
    """Keep Ctrl-C from the processes that this thread starts: they would print tracebacks."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _answered(connection: Connection, seconds: float, stop: threading.Event) -> bool:
    """Wait for an answer; False if there is none in time, or the wait is to stop."""
    until = time.monotonic() + seconds
    while not stop.is_set() and (left := until - time.monotonic()) > 0:
        if connection.poll(min(left, _POLL_S)):
            return True
    return False


def _hung(name: str, seconds: float) -> Finding:
    return problem(
        name,
        f"no answer within {seconds:g} s",
        "check that disks, stores and servers that it asks answer; seconds=… gives it more time",
    )


def _crashed(name: str, code: int | None, said: Path) -> Finding:
    how = f"exit code {code}" if code is None or code >= 0 else signal.Signals(-code).name
    words = said.read_text(errors="replace").strip() if said.is_file() else ""
    last = words.splitlines()[-1][:_LAST_WORDS] if words else "it said nothing"
    return problem(
        name,
        f"the check ended its process ({how}): {mask_secrets(last)}",
        "a run that uses the same would end too: install that library again, or look into the "
        "system's log",
    )


# In the processes


def _serve(connection: Connection, said: Path, check: Check, config: DoctorConfig) -> None:
    """Body of a process. What libraries print goes to a file."""
    descriptor = os.open(said, os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    connection.send([])  # it has started
    name = check.__name__.removeprefix("check_")  # type: ignore[attr-defined]
    found: list[Finding] = []
    try:
        found.extend(check(config))
    except Unreachable as error:
        found.append(problem(name, *error.args))
    except Exception as error:  # a check may fail in any way, and the others go on
        remedy = "look at what it names; if that is a library, install it again"
        found.append(problem(name, f"the check failed: {describe_error(error)}", remedy))
    connection.send([_masked(finding) for finding in found])


def _masked(finding: Finding) -> Finding:
    found, remedy = mask_secrets(finding.found), mask_secrets(finding.remedy)
    return replace(finding, found=found, remedy=remedy)
