"""Commands in children of one warm process, which has imported what they import.

A job takes seconds to import and a test of it starts several. `WarmServer` starts one process,
`python -m tests.warm`, which imports each job once and forks a child for each run. A child has
its own arguments, environment, working directory and output files, runs `main` of the job and
ends as an interpreter ends. What a module reads when it is imported, it has read in the server.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests import ROOT

_LATE = {
    "jobs.track": ["pipeline.tracking.run"],
    "jobs.train": ["pipeline.training.train_parts", "pipeline.training.fit"],
    "jobs.distill": ["pipeline.training.distill_parts", "pipeline.training.fit"],
}
"""What jobs import only when their settings are known to be good."""

# The server


def serve(requests, answers):
    """Answer requests, a JSON object a line each, until they end.

    Returns None at the end, and in a forked child the request that the child has to run.
    """
    for line in requests:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            for module in (request["module"], *_LATE.get(request["module"], ())):
                importlib.import_module(module)
            # A fork copies the calling thread alone; a lock that another holds would stay locked.
            # The thread of pyarrow's jemalloc is none of Python's, and jemalloc knows of forks.
            others = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
            assert not others, f"{request['module']} starts threads when it is imported: {others}"
            sys.stdout.flush()
            answer = os.fork()
            if answer == 0:
                return request
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return None


def become(request):
    """Run a command in this process as a fresh interpreter would; returns its exit code."""
    outputs = os.O_WRONLY | os.O_APPEND
    files = (os.devnull, os.O_RDONLY), (request["stdout"], outputs), (request["stderr"], outputs)
    for descriptor, (path, flags) in enumerate(files):
        opened = os.open(path, flags)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    for place, name, arguments in request["before"]:
        getattr(importlib.import_module(place), name)(*arguments)
    module = importlib.import_module(request["module"])
    sys.argv = [module.__file__, *request["argv"]]
    return module.main(request["argv"])


def main():
    """Serve over standard input and output, which are then taken from all that is imported."""
    with os.fdopen(os.dup(0)) as requests, os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        request = serve(requests, answers)
    return 0 if request is None else become(request)


# The side of the tests


class WarmProcess:
    """A command that was started, to be used like `subprocess.Popen`."""

    def __init__(self, server, pid, log):
        self.server, self.pid, self.log, self.returncode = server, pid, log, None

    def poll(self):
        """The exit code, or the signal's number with a minus, or None while it runs."""
        if self.returncode is None:
            self.returncode = self.server.ask(poll=self.pid)
        return self.returncode

    def wait(self, timeout=None):
        """The exit code; raises `subprocess.TimeoutExpired` after `timeout` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.01)
        return self.returncode

    def send_signal(self, number):
        """Send a signal to a process that still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def said(self):
        """What it has written so far."""
        return self.log.read_text()


class WarmServer:
    """The warm process, started with the first command; its own files lie in `folder`."""

    def __init__(self, folder: Path):
        self.folder, self.server, self.lock = folder, None, threading.Lock()
        self.started: list[WarmProcess] = []

    def start(self, module, argv, *, cwd=ROOT, env=None, before=()):
        """Start `python -m module argv`, with both outputs in one file.

        Args:
            module: name of a module with a function `main(argv)`, such as "jobs.track".
            argv: its arguments.
            cwd: working directory.
            env: all of its environment; by default this process's.
            before: calls that the child makes first, as (module, function, arguments).
        """
        log = self._file("log")
        return self._start(module, argv, cwd, env, before, log, log)

    def run(self, module, argv, *, cwd=ROOT, env=None, timeout=None):
        """Run `python -m module argv` to its end, as `subprocess.run` with captured text does."""
        outputs = self._file("out"), self._file("err")
        process = self._start(module, argv, cwd, env, (), *outputs)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(argv, code, *(path.read_text() for path in outputs))

    def close(self):
        """Kill what still runs, and the server, which has nothing to put away."""
        for process in self.started:
            process.send_signal(signal.SIGKILL)
        if self.server is not None:
            self.server.kill()
            self.server.wait()

    def ask(self, **request):
        with self.lock:
            if self.server is None:
                with (self.folder / "server").open("w") as said:
                    self.server = subprocess.Popen(
                        [sys.executable, "-m", "tests.warm"],
                        cwd=ROOT,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=said,
                        text=True,
                    )
            self.server.stdin.write(json.dumps(request) + "\n")
            self.server.stdin.flush()
            answer = self.server.stdout.readline()
        if not answer:
            self.server.wait(timeout=30)
            raise RuntimeError(f"the warm process died:\n{(self.folder / 'server').read_text()}")
        return json.loads(answer)

    def _start(self, module, argv, cwd, env, before, stdout, stderr):
        request = {"module": module, "argv": [str(word) for word in argv], "cwd": str(cwd)}
        request |= {"env": dict(os.environ if env is None else env), "before": before}
        pid = self.ask(**request, stdout=str(stdout), stderr=str(stderr))
        self.started.append(WarmProcess(self, pid, stdout))
        return self.started[-1]

    def _file(self, kind):
        path = self.folder / f"{len(self.started)}.{kind}"
        path.touch()
        return path


if __name__ == "__main__":
    sys.exit(main())
