"""Reading headers in order, and sets of ids."""

import threading
from dataclasses import replace
from itertools import count, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.archive.ahead import Ahead
from pipeline.archive.id_set import IdSet
from pipeline.archive.in_order import in_order
from pipeline.archive.survey import Unread, Unreadable, survey
from pipeline.storage import files as storage
from pipeline.storage.files import ArchiveFile, StorageError
from pipeline.video.info import VideoInfo
from pipeline.video.probe import ProbeError
from tests.pipeline.archive.test_plan import INFO
from tests.videos import write_video


@settings(max_examples=40)
@given(st.lists(st.sampled_from(["good", "bad", "unread"]), max_size=70), st.integers(1, 5))
def test_survey_gives_one_value_a_file_in_its_order(kinds, threads):
    """Its etag stands for the content, so no file has to be there."""
    listing = [ArchiveFile(f"/{n}.mp4", f"{n}.mp4", 1, str(n)) for n in range(len(kinds))]

    def probe(file):
        kind = kinds[int(file.etag)]
        if kind == "bad":
            raise ProbeError("no picture track")
        if kind == "unread":
            raise StorageError("connection lost")
        return replace(INFO, video_id=file.relative_path, relative_path=file.relative_path)

    found = list(survey(listing, threads, probe))
    assert [item.relative_path for item in found] == [file.relative_path for file in listing]
    types = {"good": VideoInfo, "bad": Unreadable, "unread": Unread}
    assert [type(item) for item in found] == [types[kind] for kind in kinds]
    reasons = {item.error for item in found if isinstance(item, Unreadable)}
    assert reasons <= {"no picture track"}


def test_a_new_file_is_read_once_for_its_identity(tmp_path, monkeypatch):
    made = [write_video(tmp_path / f"{n}.mp4", frames=2) for n in range(3)]
    opened = []

    def counted(uri):
        opened.append(uri)
        return open(uri, "rb")

    monkeypatch.setattr(storage, "open_binary", counted)
    found = list(survey(storage.list_videos(str(tmp_path)), 1))
    assert all(isinstance(item, VideoInfo) for item in found)
    assert sorted(opened) == sorted(map(str, made))


def test_items_are_taken_only_a_little_ahead():
    taken = []
    endless = (taken.append(n) or n for n in count())
    results = in_order(lambda n: n * n, endless, 2)
    assert list(islice(results, 10)) == [n * n for n in range(10)]
    assert len(taken) < 10 + 2 * 16 + 2
    results.close()


TEXTS = st.text("abc", max_size=3)


@given(st.lists(st.lists(TEXTS, max_size=8), max_size=12), st.lists(TEXTS, max_size=8))
def test_id_set_is_a_set(batches, asked):
    ids, real = IdSet(), set()
    for batch in batches:
        before = set(real)
        new = ids.add(batch)
        assert len(new) == len(batch)
        real |= set(batch)
        added = [text for text, is_new in zip(batch, new, strict=True) if is_new]
        assert set(added) == real - before and len(added) == len(set(added))
        assert len(ids) == len(real)
    assert ids.has(asked).tolist() == [text in real for text in asked]
    assert all((text in ids) == (text in real) for text in asked)


def test_id_set_takes_sixteen_bytes_an_id():
    ids = IdSet(str(n) for n in range(100_000))
    assert sum(run.nbytes for run in ids._runs) == 1_600_000
    assert np.count_nonzero(ids.has([str(n) for n in range(99_990, 100_010)])) == 10


def test_ahead_gives_all_items_and_then_the_error():
    def items():
        yield from range(10)
        raise StorageError("connection lost")

    ahead = Ahead(items(), 3)
    assert ahead.take(4) == [0, 1, 2, 3]
    assert ahead.take(6) == [4, 5, 6, 7, 8, 9]
    with pytest.raises(StorageError, match="connection lost"):
        ahead.take(1)
    assert ahead.take(1) == []


def test_ahead_waits_when_nothing_is_taken_and_ends_when_it_is_left():
    taken, over = [], threading.Event()

    def items():
        try:
            for n in count():
                taken.append(n)
                yield n
        finally:
            over.set()

    ahead = Ahead(items(), 5)
    assert ahead.take(3) == [0, 1, 2]
    assert not over.wait(0.3)
    assert len(taken) <= 3 + 5 + 1
    ahead.leave()
    assert over.wait(30)
