"""Identities: of a file's content, and the name of a video that is made of it."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipeline.storage.files import ArchiveFile, content_identity, list_videos
from pipeline.storage.identity import video_id


def _file(path: Path) -> ArchiveFile:
    return next(list_videos(str(path)))


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
