"""Compactions killed, doubled, and beside a run that tracks: the rows are those of before."""

import os
import shutil
import signal
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.storage import files as storage
from pipeline.storage.reading import table_files
from tests.faults.invariant import KEYS


@pytest.fixture(scope="session")
def tracked(drivers, command, tmp_path_factory):
    """A folder that `track` has finished."""
    output = tmp_path_factory.mktemp("tracked")
    code, said = drivers.run(command(output), ("probe_here", ()))
    assert code == 3, said
    return output


@pytest.fixture
def compaction(drivers):
    def start(output, *faults):
        before = [("tests.faults.injected", name, arguments) for name, arguments in faults]
        argv = [f"output={output}", "partition=folder", "keep_s=0"]
        return drivers.warm.start("jobs.compact", argv, env=dict(os.environ), before=before)

    return start


def read_as_documented(output, reference):
    """A reader that takes what `table_files` lists sees each row once."""
    for table in ("tracks", "frames", "videos"):
        found = Counter()
        for uri in table_files(str(output), table):
            rows = pq.read_table(pa.BufferReader(storage.read_bytes(uri))).to_pylist()
            found.update(tuple(row[name] for name in KEYS[table]) for row in rows)
        assert found == Counter(
            tuple(row[name] for name in KEYS[table]) for row in reference[table]
        )


def killed_before(number, compaction, tracked, output, holds, reference, stopwatch):
    """Kill a compaction before a change, and finish it; False if it has fewer changes."""
    shutil.copytree(tracked, output)
    process = compaction(output, ("kill_at_write", (number,)))
    code = process.wait()
    read_as_documented(output, reference)
    if code == 0:
        return False
    assert code == -signal.SIGKILL, process.said()
    started = stopwatch()
    again = compaction(output)
    assert again.wait() == 0, again.said()
    read_as_documented(output, reference)
    holds(output, f"SIGKILL before write {number}", stopwatch() - started)
    assert not list((output / "videos").iterdir())
    return True


@pytest.mark.parametrize("number", [6, 16])
def test_killed_in_a_compaction(compaction, tracked, holds, reference, stopwatch, tmp_path, number):
    """Between two files of a set, and between two removals."""
    output = tmp_path / "out"
    assert killed_before(number, compaction, tracked, output, holds, reference, stopwatch)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_every_write_of_a_compaction(
    compaction, tracked, holds, reference, stopwatch, tmp_path
):
    number = 1
    while killed_before(
        number, compaction, tracked, tmp_path / str(number), holds, reference, stopwatch
    ):
        number += 1
    assert number > 20


def test_two_compactions_at_once(compaction, tracked, holds, reference, stopwatch, tmp_path):
    output = tmp_path / "out"
    shutil.copytree(tracked, output)
    both = [compaction(output) for _ in range(2)]
    codes = sorted(process.wait() for process in both)
    said = "".join(process.said() for process in both)
    assert codes in ([0, 0], [0, 2]), said  # one may end before the other begins
    assert codes == [0, 0] or "another vsdmot compact" in said
    read_as_documented(output, reference)
    started = stopwatch()
    assert compaction(output).wait() == 0
    holds(output, "second compaction", stopwatch() - started)


def test_compaction_beside_a_run(
    drivers, command, compaction, holds, reference, stopwatch, tmp_path
):
    """Compactions one after the other while `track` writes into the folder."""
    output = tmp_path / "out"
    driver = drivers.start(command(output), ("probe_here", ()), ("slow", (0.1,)))
    count = 0
    while driver.poll() is None:
        if storage.list_stems(f"{output}/videos"):
            process = compaction(output)
            assert process.wait() == 0, process.said()
            count += 1
    assert driver.wait() == 3, driver.said()
    assert count
    started = stopwatch()
    assert compaction(output).wait() == 0
    holds(output, f"{count} compactions beside it", stopwatch() - started)
    code, said = drivers.run(command(output), ("probe_here", ()))
    assert code == 3, said
    holds(output, "track again", stopwatch() - started)
