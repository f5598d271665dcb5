"""What the fault tests share: an archive, its undisturbed result, warm drivers, the table."""

import os
import time
from dataclasses import dataclass

import pytest

from tests.faults import invariant
from tests.videos import cut, write_text, write_video
from tests.warm import WarmProcess, WarmServer

# Ray's processes have ten seconds to find each other; it reads this when it is imported.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")


@dataclass
class Drivers:
    """Runs of the tracking job, each in a process that may be killed."""

    warm: WarmServer

    def start(self, argv, *faults, **environment) -> WarmProcess:
        """Start a run with faults of `injected` in it, each a name and arguments."""
        before = [("tests.faults.injected", name, arguments) for name, arguments in faults]
        return self.warm.start("jobs.track", argv, env=os.environ | environment, before=before)

    def run(self, argv, *faults, **environment) -> tuple[int, str]:
        """The exit code of a run and what it said."""
        driver = self.start(argv, *faults, **environment)
        return driver.wait(), driver.said()


@pytest.fixture(scope="session")
def drivers(warm):
    return Drivers(warm)


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
        fixed = f"weights={weights}", "mlflow.enabled=false", "report=false", "cluster.workers=0"
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
