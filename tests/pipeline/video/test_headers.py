"""Headers in a process of their own: what a file that kills it costs."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.storage.files import ArchiveFile
from pipeline.video import headers
from pipeline.video.headers import HeaderReader
from pipeline.video.limits import Limits
from pipeline.video.probe import ProbeError

THREADS = 16


@pytest.fixture
def children(monkeypatch):
    """Processes that are none: crash.mp4 ends them, as soon as all sixteen files are asked for."""
    started = []
    together = threading.Barrier(THREADS)

    class Child:
        def __init__(self, threads, limits):
            self.shared, self.lost, self.ended = threads > 1, False, False
            started.append(self)

        def ask(self, file, deadline_s):
            assert not self.ended
            if self.shared:
                together.wait(10)
            if self.shared or file.relative_path == "crash.mp4":
                self.lost = True
                raise headers._Lost("poison", "ended its process (SIGSEGV)")
            time.sleep(0.03)  # by then all the others are suspects too
            return file.relative_path

        def end(self):
            self.ended = self.lost = True

    monkeypatch.setattr(headers, "_Child", Child)
    return started


def test_one_header_that_crashes_costs_two_processes(children):
    names = ["crash.mp4", *(f"{n}.mp4" for n in range(THREADS - 1))]

    def read(reader, name):
        try:
            return reader.probe(ArchiveFile(f"/{name}", name, 1, None))
        except ProbeError as error:
            return str(error)

    with HeaderReader(THREADS, Limits(), 5.0) as reader, ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda name: read(reader, name), names))
    assert found == ["reading the header ended its process (SIGSEGV)", *names[1:]]
    # The one for all, the one for suspects, and that again after the crash; it was one a file.
    assert len(children) <= THREADS // 3
    assert all(child.ended or child.lost for child in children)
