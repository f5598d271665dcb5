"""A header reader that some files kill or stop; alone here, so that it starts fast."""

import os
import signal
import time

from pipeline.video import headers
from pipeline.video.probe import probe


def serve(connection, threads, limits):
    """A file named crash.mp4 kills the process, one named hang.mp4 takes for ever."""

    def probe_or_die(file, bounds):
        if file.relative_path == "crash.mp4":
            os.kill(os.getpid(), signal.SIGSEGV)
        if file.relative_path == "hang.mp4":
            time.sleep(3600)
        return probe(file, bounds)

    headers.probe = probe_or_die
    REAL(connection, threads, limits)


REAL = headers._serve


def read_in_a_worker(files, threads, limits):
    """As the task of `archive.on_ray`, with such a reader; runs in a process of Ray."""
    from pipeline.archive import on_ray

    headers._serve = serve
    on_ray.HEADER_DEADLINE_S = 5.0
    return on_ray._read_headers(files, threads, limits)
