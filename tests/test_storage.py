"""Storage: what is listed, what is whole, what an error says."""

import errno
import multiprocessing
import os
import secrets
import signal
import socket
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from s3fs import S3FileSystem

from pipeline.storage import files as storage
from pipeline.storage.files import ArchiveFile, StorageError, content_identity, list_videos
from pipeline.storage.identity import video_id

ODD_NAMES = ["a b.mp4", 'it\'s "quoted".MP4', "new\nline.avi", "größe 東京.mkv", "a::b#c%20?.mov"]


def _file(path: Path) -> ArchiveFile:
    return next(list_videos(str(path)))


def test_list_videos_is_recursive_sorted_and_by_extension(tmp_path: Path) -> None:
    for name in [*ODD_NAMES, "sub/deep/z.ts", "notes.txt", "no_extension"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    found = list(list_videos(str(tmp_path)))
    assert [f.relative_path for f in found] == sorted([*ODD_NAMES, "sub/deep/z.ts"])
    for file in found:
        content = file.relative_path.encode()
        assert storage.read_bytes(file.uri) == content
        assert file.size == len(content)
        with storage.open_binary(file.uri) as opened:
            opened.seek(1)
            assert opened.read() == content[1:]


def test_root_may_be_one_file_a_file_url_or_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "clip.bin"
    path.write_bytes(b"x")
    (tmp_path / "b.mp4").write_bytes(b"y")
    assert _file(path) == ArchiveFile(str(path), "clip.bin", 1, None)
    assert _file(Path(f"file://{tmp_path}")).relative_path == "b.mp4"
    monkeypatch.chdir(tmp_path.parent)
    assert next(list_videos(tmp_path.name)).uri == str(tmp_path / "b.mp4")


def test_linked_folders_are_followed_once_and_devices_are_not(tmp_path: Path) -> None:
    disk, root = tmp_path / "disk", tmp_path / "root"
    (disk / "cam").mkdir(parents=True)
    root.mkdir()
    (disk / "cam" / "a.mp4").write_bytes(b"a")
    (root / "linked").symlink_to(disk)
    (disk / "loop").symlink_to(root)
    (root / "b.mp4").symlink_to(disk / "cam" / "a.mp4")
    os.mkfifo(root / "pipe.mp4")
    assert [(f.relative_path, f.size) for f in list_videos(str(root))] == [
        ("b.mp4", 1),
        ("linked/cam/a.mp4", 1),
    ]


def test_missing_folder_is_named_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=rf"cannot list {tmp_path}/none: .*check the spelling"):
        list_videos(str(tmp_path / "none"))


def test_unreadable_folder_is_named_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tests may run as root, whom no mode stops: the refusal is put where it would come from.
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    (tmp_path / "closed").mkdir()
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match=r"Permission denied: .*check the rights of user"):
        list_videos(str(tmp_path))


def test_name_that_no_table_can_hold_is_refused(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.mp4", "wb"):
        pass
    with pytest.raises(StorageError, match=r"caf\\xe9\.mp4.* is not UTF-8.*rename"):
        list_videos(str(tmp_path))


def test_unknown_store_and_empty_path_are_refused() -> None:
    with pytest.raises(StorageError, match="nosuch://x"):
        list_videos("nosuch://x")
    with pytest.raises(StorageError, match="empty"):
        list_videos("")


@pytest.mark.parametrize(
    ("uri", "package"),
    [
        ("gs://cams/2024/", "gcsfs"),
        ("gcs://cams/2024/", "gcsfs"),
        ("abfs://cams@account.dfs.core.windows.net/2024/", "adlfs"),
        ("az://cams/2024/", "adlfs"),
    ],
)
def test_store_without_its_package_names_the_package(
    monkeypatch: pytest.MonkeyPatch, uri: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    for act in (list_videos, storage.read_bytes, storage.exists):
        with pytest.raises(StorageError, match=rf"cannot open {uri}: .*pip install {package}"):
            act(uri)


def test_missing_credentials_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    # Another test's file system would bring its credentials.
    S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with socket.socket() as closed:  # a port on which nobody answers
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(StorageError, match=r"s3://bucket/cams.*AWS_ACCESS_KEY_ID"):
            list_videos("s3://bucket/cams")


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


def test_content_identity_sees_head_middle_and_tail(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    data = bytearray(1 << 20)
    seen = set()
    for changed in (None, 0, (1 << 19) + 7, (1 << 20) - 1):
        if changed is not None:
            data[changed] ^= 1
        path.write_bytes(data)
        seen.add(content_identity(_file(path)))
    path.write_bytes(data + b"\0")
    seen.add(content_identity(_file(path)))
    assert len(seen) == 5


def test_content_identity_of_a_remote_file_is_its_etag() -> None:
    assert content_identity(ArchiveFile("s3://b/a.mp4", "a.mp4", 5, "abc")) == "5-abc"


@given(st.text(min_size=1), st.text())
def test_video_id_is_stable_and_safe_as_a_file_name(path: str, identity: str) -> None:
    name = video_id(path.encode("utf-8", "replace").decode(), identity)
    assert name == video_id(path.encode("utf-8", "replace").decode(), identity)
    assert len(name) <= 53
    assert all(c.isascii() and (c.isalnum() or c == "-") for c in name)
    assert name[0] != "-"


@given(st.lists(st.tuples(st.text(), st.text()), min_size=2, max_size=2, unique=True))
def test_video_id_tells_files_apart(pair: list[tuple[str, str]]) -> None:
    (path, identity), (other_path, other_identity) = pair
    if "\0" not in path + identity + other_path + other_identity:
        assert video_id(path, identity) != video_id(other_path, other_identity)


def test_video_id_does_not_change_between_versions() -> None:
    assert video_id("cams/Nörd 1.mp4", "5-abc") == "Nord-1-6767047e723a"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
