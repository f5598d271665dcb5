"""Listing an archive: which files it holds, and what is said of places that cannot be read."""

import os
import socket
import sys
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from pipeline.storage import files as storage
from pipeline.storage.files import ArchiveFile, StorageError, list_videos

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
