"""Storage: what is listed, what is whole, what an error says."""

import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import storage
from pipeline.storage import ArchiveFile, StorageError, content_identity, list_videos, video_id

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


def test_missing_credentials_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
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


def _write_for_ever(folder: str) -> None:
    number = 0
    while True:
        storage.create_if_absent(f"{folder}/created{number}", b"\1" * (1 << 20))
        storage.write_atomic(f"{folder}/replaced", b"\1" * (1 << 20))
        number += 1


@pytest.mark.parametrize("seconds", [0.15, 0.22, 0.31])
def test_kill_leaves_no_half_file(tmp_path: Path, seconds: float) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=_write_for_ever, args=(str(tmp_path),)
    )
    process.start()
    time.sleep(seconds)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    whole = [path for path in tmp_path.iterdir() if path.suffix != ".tmp"]
    assert whole, "the process was killed before it had written anything"
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
