"""Writing files: whole or not at all, created once, whatever fails or is killed meanwhile."""

import errno
import multiprocessing
import os
import secrets
import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pipeline.storage import files as storage
from pipeline.storage.files import StorageError


def test_write_atomic_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "rows.parquet"
    storage.write_atomic(str(path), b"one")
    storage.write_atomic(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["rows.parquet"]
    assert path.stat().st_mode & 0o077 == 0o666 & ~_umask() & 0o077


def test_create_if_absent_creates_once(tmp_path: Path) -> None:
    uri = str(tmp_path / "videos" / "v.parquet")
    assert storage.create_if_absent(uri, b"first")
    assert not storage.create_if_absent(uri, b"second")
    assert storage.read_bytes(uri) == b"first"
    assert os.listdir(tmp_path / "videos") == ["v.parquet"]


def test_create_if_absent_elsewhere_than_on_disk() -> None:
    uri = f"memory://{time.time_ns()}/v.parquet"
    assert storage.create_if_absent(uri, b"first")
    assert not storage.create_if_absent(uri, b"second")
    assert storage.read_bytes(uri) == b"first"
    assert storage.list_stems(uri.rsplit("/", 1)[0]) == {"v"}


def _race(uri: str, start: float, wins: "multiprocessing.Queue[bool]") -> None:
    time.sleep(max(0.0, start - time.time()))
    wins.put(storage.create_if_absent(uri, os.urandom(1 << 16)))


def test_of_many_processes_one_creates(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    wins = context.Queue()
    arguments = (str(tmp_path / "v"), time.time() + 0.3, wins)
    processes = [context.Process(target=_race, args=arguments) for _ in range(6)]
    for process in processes:
        process.start()
    assert sum(wins.get(timeout=30) for _ in processes) == 1
    for process in processes:
        process.join()


@settings(max_examples=25)
@given(st.lists(st.binary(max_size=2000), min_size=2, max_size=8))
def test_of_many_threads_one_creates(contents: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(contents)) as pool:
        uri, together = f"{folder}/videos/v.parquet", threading.Barrier(len(contents))

        def create(data: bytes) -> bool:
            together.wait()
            return storage.create_if_absent(uri, data)

        won = list(pool.map(create, contents))
        assert sum(won) == 1
        assert storage.read_bytes(uri) == contents[won.index(True)]
        assert os.listdir(f"{folder}/videos") == ["v.parquet"]


@given(
    st.binary(max_size=3000),
    st.binary(max_size=3000),
    st.sampled_from(["write_atomic", "publish", "create_if_absent"]),
    st.sampled_from(["makedirs", "fsync", "replace", "link"]),
    st.sampled_from([errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES]),
)
def test_write_that_fails_leaves_what_was_there(
    old: bytes, new: bytes, writer: str, place: str, number: int
) -> None:
    """Wherever a disk fails: the old file or the new one, whole, and nothing beside it."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        uri = f"{folder}/rows"
        held = {}
        if writer != "create_if_absent":
            storage.write_atomic(uri, old)
            held = {"rows": old}
        write = _published if writer == "publish" else getattr(storage, writer)
        patch.setattr(os, place, fail)
        if place in ("makedirs", "fsync", {"create_if_absent": "link"}.get(writer, "replace")):
            with pytest.raises(StorageError, match=f"{uri}: .*{os.strerror(number)}"):
                write(uri, new)
        else:
            write(uri, new)
            held = {"rows": new}
        patch.undo()
        assert {name: storage.read_bytes(f"{folder}/{name}") for name in os.listdir(folder)} == held


@settings(max_examples=20)
@given(st.lists(st.integers(0, 255), min_size=2, max_size=6))
def test_reader_sees_whole_files_only(fills: list[int]) -> None:
    """Files of one byte repeated, replaced while they are read."""
    with tempfile.TemporaryDirectory() as folder:
        uri, over = f"{folder}/rows", threading.Event()
        storage.write_atomic(uri, b"")

        def write() -> None:
            for fill in fills:
                storage.write_atomic(uri, bytes([fill]) * 300_000)
            over.set()

        thread = threading.Thread(target=write)
        thread.start()
        while not over.is_set():
            assert len(set(storage.read_bytes(uri))) <= 1
        thread.join()
        assert storage.read_bytes(uri) == bytes([fills[-1]]) * 300_000


def _published(uri: str, data: bytes) -> None:
    with tempfile.TemporaryFile() as source:
        source.write(data)
        source.flush()
        storage.publish(uri, source)


KEYS = st.sampled_from(["a", "b c", "größe", "x:y", "d.e", "sub/a", "sub/b"])


class StorageModel(RuleBasedStateMachine):
    """A place to write, compared with a dictionary of what it should hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.root = self.folder.name
        self.held: dict[str, bytes] = {}

    def teardown(self) -> None:
        self.folder.cleanup()

    def uri(self, key: str) -> str:
        return f"{self.root}/out/{key}.parquet"

    @rule(key=KEYS, data=st.binary(max_size=64), writer=st.sampled_from(["bytes", "file"]))
    def write(self, key: str, data: bytes, writer: str) -> None:
        (storage.write_atomic if writer == "bytes" else _published)(self.uri(key), data)
        self.held[key] = data

    @rule(key=KEYS, data=st.binary(max_size=64), conditional=st.booleans())
    def create(self, key: str, data: bytes, conditional: bool) -> None:
        new = storage.create_if_absent(self.uri(key), data, conditional)
        assert new == (key not in self.held or self.taken_for_own(key, data, conditional))
        self.held.setdefault(key, data)

    def taken_for_own(self, key: str, data: bytes, conditional: bool) -> bool:
        return False

    @rule(key=KEYS)
    def remove(self, key: str) -> None:
        storage.remove(self.uri(key))
        self.held.pop(key, None)

    @rule(key=KEYS)
    def look(self, key: str) -> None:
        assert storage.exists(self.uri(key)) == (key in self.held)
        if key in self.held:
            assert storage.read_bytes(self.uri(key)) == self.held[key]

    @invariant()
    def listed(self) -> None:
        for folder in ("", "sub/"):
            expected = {key.removeprefix(folder) for key in self.held if key.startswith(folder)}
            expected = {key for key in expected if "/" not in key}
            assert storage.list_stems(f"{self.root}/out/{folder}") == expected


class MemoryModel(StorageModel):
    """The same on fsspec's store in memory, which stands for buckets: no folders, no renames."""

    def __init__(self) -> None:
        super().__init__()
        self.root = f"memory://{secrets.token_hex(8)}"

    def taken_for_own(self, key: str, data: bytes, conditional: bool) -> bool:
        """A store may have lost the answer to this very call: the same bytes count as its own."""
        return conditional and self.held.get(key) == data


TestLocalStorage = StorageModel.TestCase
TestLocalStorage.settings = settings(max_examples=30, stateful_step_count=20)
TestStoreInMemory = MemoryModel.TestCase
TestStoreInMemory.settings = settings(max_examples=30, stateful_step_count=20)


def _write_for_ever(folder: str) -> None:
    number = 0
    while True:
        storage.create_if_absent(f"{folder}/created{number}", b"\1" * (1 << 20))
        storage.write_atomic(f"{folder}/replaced", b"\1" * (1 << 20))
        number += 1


@pytest.mark.parametrize("seconds", [0.05, 0.12, 0.21])
def test_kill_leaves_no_half_file(tmp_path: Path, seconds: float) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=_write_for_ever, args=(str(tmp_path),)
    )
    process.start()
    while not list(tmp_path.glob("created*")):
        time.sleep(0.005)
    time.sleep(seconds)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    whole = [path for path in tmp_path.iterdir() if path.suffix != ".tmp"]
    assert all(path.read_bytes() == b"\1" * (1 << 20) for path in whole)
    assert not storage.list_stems(str(tmp_path), ".parquet")


def test_failed_write_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(
        StorageError, match=rf"cannot write {tmp_path}/file/x: .*choose another path"
    ):
        storage.write_atomic(str(tmp_path / "file" / "x"), b"")


def test_exists_and_list_stems(tmp_path: Path) -> None:
    uri = str(tmp_path / "tracks" / "v1.parquet")
    assert not storage.exists(uri)
    assert storage.list_stems(str(tmp_path / "tracks")) == set()
    storage.write_atomic(uri, b"")
    (tmp_path / "tracks" / "note.txt").write_bytes(b"")
    assert storage.exists(uri)
    assert storage.list_stems(str(tmp_path / "tracks")) == {"v1"}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
