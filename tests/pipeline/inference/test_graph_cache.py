"""Kept graphs: made once, remade when damaged, and never in the way of tracking."""

import fcntl
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from pipeline.inference.graph_cache import GraphCache, cache_folder

GRAPH = b"layers " * 1000


class Maker:
    """Counts how often the graph is made."""

    def __init__(self):
        self.made = 0

    def __call__(self):
        self.made += 1
        return GRAPH


def test_a_graph_is_made_once_and_read_after_that(tmp_path):
    make = Maker()
    for _ in range(3):
        assert GraphCache(tmp_path / "new" / "folder").get("step", bytes, make) == GRAPH
    assert make.made == 1
    GraphCache(tmp_path / "new" / "folder").get("encode", bytes, make)
    assert make.made == 2


def test_graphs_of_another_folder_are_read_and_nothing_in_it_changes(tmp_path):
    make = Maker()
    before, folder = tmp_path / "before", tmp_path / "folder"
    GraphCache(before).get("step", bytes, make)
    times = {path: path.stat().st_mtime_ns for path in (before, *before.iterdir())}
    cache = GraphCache(folder, before)
    assert [cache.get(key, bytes, make) for key in ("step", "encode", "encode")] == [GRAPH] * 3
    assert make.made == 2
    assert times == {path: path.stat().st_mtime_ns for path in (before, *before.iterdir())}
    assert not (folder / "step").exists()


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[: len(b) // 2], lambda b: b[:-1] + b"!", lambda b: b"", lambda b: b"x" * 40],
)
def test_a_damaged_file_is_made_anew(tmp_path, damage):
    make = Maker()
    cache = GraphCache(tmp_path)
    cache.get("step", bytes, make)
    (tmp_path / "step").write_bytes(damage((tmp_path / "step").read_bytes()))
    assert cache.get("step", bytes, make) == GRAPH
    assert make.made == 2
    assert cache.get("step", bytes, make) == GRAPH
    assert make.made == 2


def test_a_graph_that_the_runtime_refuses_is_made_anew(tmp_path):
    make = Maker()
    cache = GraphCache(tmp_path)
    cache.get("step", bytes, make)
    answers = iter([None, None, GRAPH])
    assert cache.get("step", lambda data: next(answers), make) == GRAPH
    assert make.made == 2
    with pytest.raises(RuntimeError, match="cannot be read"):
        cache.get("step", lambda data: None, make)


def test_a_folder_that_cannot_be_written_is_told_and_does_no_harm(tmp_path):
    (tmp_path / "file").write_text("in the way")
    make = Maker()
    cache = GraphCache(tmp_path / "file" / "vsdmot")
    assert cache.get("step", bytes, make) == GRAPH
    assert make.made == 1
    assert "set XDG_CACHE_HOME to a folder that can be written" in cache.problem


def test_a_full_disk_leaves_no_half_written_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    cache = GraphCache(tmp_path)
    assert cache.get("step", bytes, Maker()) == GRAPH
    assert "No space left on device" in cache.problem
    assert [p.name for p in tmp_path.iterdir()] == ["step.lock"]


def old(path, days):
    path.touch()
    then = time.time() - days * 24 * 3600
    os.utime(path, (then, then))
    return path


def test_graphs_that_nobody_used_for_a_month_are_removed_but_no_lock_in_use(tmp_path):
    unused, left = old(tmp_path / "step-of-old", 31), old(tmp_path / "tmpabc", 31)
    recent = old(tmp_path / "step-of-today", 29)
    free, held = old(tmp_path / "a.lock", 31), old(tmp_path / "b.lock", 31)
    folder = tmp_path / "folder"
    folder.mkdir()
    old(folder, 31)
    with held.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        GraphCache(tmp_path).get("step", bytes, Maker())
    assert not any(path.exists() for path in (unused, left, free))
    assert all(path.exists() for path in (recent, held, folder, tmp_path / "step"))


def test_a_graph_in_use_stays(tmp_path):
    make = Maker()
    cache = GraphCache(tmp_path)
    cache.get("step", bytes, make)
    old(tmp_path / "step", 31)
    cache.get("step", bytes, make)
    cache.get("other", bytes, make)
    assert cache.get("step", bytes, make) == GRAPH
    assert make.made == 2


def test_a_folder_that_cannot_be_written_is_still_read(tmp_path, monkeypatch):
    GraphCache(tmp_path).get("step", bytes, Maker())

    def read_only(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", read_only)
    make = Maker()
    assert GraphCache(tmp_path).get("step", bytes, make) == GRAPH
    assert make.made == 0


def test_the_cache_lies_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "vsdmot"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "vsdmot"


def _make_slowly(folder):
    def make():
        with (folder / "made").open("a") as file:
            file.write("x")
        time.sleep(0.5)
        return GRAPH

    assert GraphCache(folder).get("step", bytes, make) == GRAPH


def test_of_two_processes_at_once_one_makes_the_graph(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_make_slowly, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "made").read_text() == "x"
