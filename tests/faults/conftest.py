"""What the fault tests share: an archive, its undisturbed result, warm drivers, the table."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults import invariant
from tests.videos import cut, write_text, write_video

ROOT = Path(__file__).parents[2]

# Ray's processes have ten seconds to find each other; it reads this when it is imported.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")


@dataclass
class Drivers:
    """Runs of the job, each in a process that may be killed."""

    server: subprocess.Popen
    folder: Path
    logs: dict[int, Path] = field(default_factory=dict)

    def start(self, argv, *faults, **environment) -> int:
        log = self.folder / f"{len(self.logs)}.log"
        pid = self._say(
            {"argv": argv, "faults": faults, "environment": environment, "log": str(log)}
        )
        self.logs[pid] = log
        return pid

    def wait(self, pid: int) -> int:
        return self._say({"wait": pid})

    def run(self, argv, *faults, **environment) -> tuple[int, str]:
        pid = self.start(argv, *faults, **environment)
        code = self.wait(pid)
        return code, self.said(pid)

    def said(self, pid: int) -> str:
        return self.logs[pid].read_text()

    def _say(self, command):
        self.server.stdin.write(json.dumps(command) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())


@pytest.fixture(scope="session")
def drivers(tmp_path_factory):
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.warm"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    yield Drivers(server, tmp_path_factory.mktemp("logs"))
    server.stdin.close()
    server.wait(timeout=30)


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """Three videos, one of them cut short, and a file that is none."""
    folder = tmp_path_factory.mktemp("archive")
    write_video(folder / "a.mp4", frames=10)
    (folder / "yard").mkdir()
    write_video(folder / "yard" / "b.mkv", frames=6)
    cut(
        write_video(folder / "cut.mp4", frames=20, container_options={"movflags": "faststart"}), 0.7
    )
    write_text(folder / "text.mp4")
    return folder


@pytest.fixture(scope="session")
def command(archive, weights):
    """The job's arguments for an output."""

    def make(output, *more, source=archive):
        fixed = f"weights={weights}", "mlflow.enabled=false", "cluster.workers=0"
        return [f"input={source}", f"output={output}", *fixed, *more]

    return make


@pytest.fixture(scope="session")
def reference(drivers, command, tmp_path_factory):
    """The rows of a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("undisturbed")
    code, said = drivers.run(command(output), ("probe_here", ()))
    assert code == 3, said
    rows = invariant.read(str(output))
    assert len(rows["videos"]) == 3 and len(rows["dead_letters"]) == 1 and rows["tracks"]
    return rows


@pytest.fixture
def holds(reference, request):
    """Check the invariant, and enter the case into the table."""

    def check(output, injected: str, seconds: float, expected=None) -> None:
        outcome = invariant.compare(str(output), expected or reference)
        case = request.node.name.removeprefix("test_").replace("_", " ")
        invariant.ROWS.append((case, injected, outcome.lost, outcome.twice, seconds))
        assert (outcome.lost, outcome.twice, outcome.wrong) == (0, 0, []), outcome

    return check


@pytest.fixture
def stopwatch():
    started = time.monotonic()
    return lambda: time.monotonic() - started


def pytest_terminal_summary(terminalreporter):
    if not invariant.ROWS:
        return
    write = terminalreporter.write_line
    width = max(len(case) for case, *_ in invariant.ROWS)
    wide = max(len(injected) for _, injected, *_ in invariant.ROWS)
    write("")
    write(f"{'case':{width}}  {'injected':{wide}}  rows lost  rows twice  seconds to recover")
    for case, injected, lost, twice, seconds in invariant.ROWS:
        write(f"{case:{width}}  {injected:{wide}}  {lost:9}  {twice:10}  {seconds:18.1f}")
