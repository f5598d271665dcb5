"""A worker for tests of videos that are tracked in parts, and deaths that it may meet."""

import itertools
from contextlib import contextmanager
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from pipeline.archive.plan import Segment
from pipeline.storage import files as storage
from pipeline.storage.files import list_videos, read_bytes
from pipeline.storage.schema import table_uri
from pipeline.tracking.parts import PartFolder
from pipeline.video.probe import probe

TIMES = ["decode_wait_s", "decode_busy_s", "encode_s", "step_s", "write_s", "frames_per_second"]


class Killed(BaseException):
    """As a SIGKILL, after which nothing of the process changes the output."""


@contextmanager
def no_change_once(dead):
    """Let no change of the output happen once `dead` answers true; it is asked before each."""

    def wrap(change):
        def changed(*arguments, **options):
            if dead():
                raise Killed
            return change(*arguments, **options)

        return changed

    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_atomic", "publish", "create_if_absent", "remove"):
            patch.setattr(storage, name, wrap(getattr(storage, name)))
        yield


@contextmanager
def killed_before(number):
    """Let the n-th change of the output, and all after it, not happen."""
    numbers = itertools.count(1)
    with no_change_once(lambda: next(numbers) >= number):
        yield


def info_of(path):
    return probe(next(list_videos(str(path))))


def run(worker, segment, output, **changes):
    """The result of a segment, with other settings than the worker was made with."""
    worker.settings = replace(worker.settings, output=output, **changes)
    worker.student = replace(worker.student, settings=worker.settings)
    return worker.track(segment)


def tracked(worker, video, output, mode="resume", **changes):
    """What `published` gives of a video that is tracked as a whole."""
    result = run(worker, Segment(video, mode), output, **changes)
    assert result.outcome in ("ok", "partial"), result
    return published(video, output)


def published(video, output):
    """Bytes of `tracks` and of `frames`, and the row of `videos` without times.

    The row has one more field, the bytes of `track_summary`.
    """
    row = pq.read_table(table_uri(output, "videos", video.video_id)).to_pylist()[0]
    assert row["frames_per_second"] > 0
    row = {name: value for name, value in row.items() if name not in TIMES}
    tables = ("tracks", "frames", "track_summary")
    tracks, frames, summary = (read_bytes(table_uri(output, t, video.video_id)) for t in tables)
    return tracks, frames, row | {"track_summary": summary}


def part_names(video, output):
    return PartFolder(output, video.video_id, "", "").names()
