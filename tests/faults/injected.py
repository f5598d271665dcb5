"""Faults put into a run, by name; each function changes the process that calls it."""

import errno
import os
import signal
import tempfile
import time
from pathlib import Path

from pipeline.archive import archive
from pipeline.storage import files as storage
from pipeline.storage import run_record
from pipeline.storage.errors import StorageError
from pipeline.tracking import track_video as track
from pipeline.tracking import worker
from pipeline.video import decode
from pipeline.video.probe import probe


class ProbedHere:
    """Headers read in this process: for the many runs that are about something else."""

    def __init__(self, threads, limits, deadline_s):
        self.limits = limits

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def probe(self, file):
        return probe(file, self.limits)


def probe_here():
    archive.HeaderReader = ProbedHere


def kill_at_write(number):
    """SIGKILL this process just before its n-th change of the output."""
    kill_at("", number)


def kill_at(words, number=1):
    """SIGKILL this process just before its n-th change of a file whose name has these words."""
    probe_here()
    seen = [0]

    def wrap(change):
        def changed(uri, *arguments, **options):
            seen[0] += words in uri
            if words in uri and seen[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(uri, *arguments, **options)

        return changed

    for name in ("write_atomic", "publish", "create_if_absent", "remove"):
        wrapped = wrap(getattr(storage, name))
        for module in (storage, run_record):
            if hasattr(module, name):
                setattr(module, name, wrapped)


def kill_inside_write(number):
    """SIGKILL this process in its n-th local write, with the data written and no name yet."""
    probe_here()
    seen = [0]
    fsync = os.fsync

    def synced(descriptor):
        fsync(descriptor)
        seen[0] += 1
        if seen[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = synced


def die_on(name, number):
    """End the process by a signal when it opens a video, as a decoder's segfault does."""
    real = worker.track_video

    def track_video(tracker, info, *arguments):
        if name in info.relative_path:
            os.kill(os.getpid(), number)
            time.sleep(3600)  # another thread may handle the signal; this one goes no further
        return real(tracker, info, *arguments)

    worker.track_video = track_video


def hang_on(name):
    """A decoder that never gives its first frame and cannot be stopped."""
    real = decode.Decoder.frames

    def frames(self):
        if name in self._info.relative_path:
            while True:
                time.sleep(3600)
        yield from real(self)

    decode.Decoder.frames = frames
    decode._STOP_WITHIN_S = 0.2


def hang_model_on(name):
    """A model that never comes back: nothing in the main thread can be interrupted."""
    real = worker.track_video

    def track_video(tracker, info, *arguments):
        if name in info.relative_path:
            while True:
                time.sleep(3600)
        return real(tracker, info, *arguments)

    worker.track_video = track_video


def slow(seconds):
    """Every window takes this much longer."""
    real = track.window_rows

    def window_rows(*arguments):
        time.sleep(seconds)
        return real(*arguments)

    track.window_rows = window_rows


def slow_workers():
    """Workers of a run on Ray that take their time."""
    from pipeline.tracking import on_ray

    on_ray.VideoTracker = SlowTracker


def disk_full(after):
    """No space on the device from the n-th write on."""
    probe_here()
    seen = [0]
    fsync = os.fsync

    def full(descriptor):
        seen[0] += 1
        if seen[0] > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    os.fsync = full


def read_only(after):
    """The output turns read-only at its n-th write."""
    probe_here()
    seen = [0]
    real = os.makedirs

    def makedirs(path, *arguments, **options):
        seen[0] += 1
        if seen[0] > after:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        real(path, *arguments, **options)

    os.makedirs = makedirs


def temporary_folder(path):
    """The worker's temporary folder, which a warm process has looked up already."""
    tempfile.tempdir = path


def temporary_folder_full():
    """No space on the device where rows wait, as the device itself says it."""

    def full(**options):
        return Path("/dev/full").open("w+b")

    tempfile.TemporaryFile = full


def no_links():
    """A disk without hard links."""

    def link(*arguments, **options):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    os.link = link


def unreadable(name):
    """Storage fails on one file, in its header or later."""
    probe_here()
    real = storage.open_binary

    def open_binary(uri):
        if name in uri:
            raise StorageError(f"cannot read {uri}: connection lost")
        return real(uri)

    storage.open_binary = open_binary
    from pipeline.video import probe as module

    module.open_binary = open_binary


def clock_jumps():
    """The wall clock goes back a day at every look, as after a bad time server."""
    now = [time.time()]

    def wall():
        now[0] -= 86400
        return now[0]

    time.time = wall


class FaultyTracker(worker.VideoTracker):
    """A worker on Ray whose decoder crashes on b.mkv and never comes back from a.mp4."""

    def __init__(self, *arguments):
        die_on("b.mkv", signal.SIGSEGV)
        hang_on("a.mp4")
        super().__init__(*arguments)


class SlowTracker(worker.VideoTracker):
    """A worker on Ray that takes its time."""

    def __init__(self, *arguments):
        slow(0.1)
        super().__init__(*arguments)


def log_closes_within(seconds):
    """Set how long a job waits for MLflow at its end, in seconds."""
    from pipeline.runtime import mlflow_run

    mlflow_run._CLOSE_WITHIN_S = seconds
