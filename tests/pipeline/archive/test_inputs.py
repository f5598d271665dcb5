"""What `input` may name: folders, patterns and lists."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.archive.inputs import find_files
from pipeline.archive.survey import Unread
from pipeline.storage.errors import StorageError


@pytest.fixture
def cams(tmp_path):
    """Files of two cameras in some months; names are enough, nobody reads them."""
    for name in (
        "a/2024-01/1.mp4", "a/2024-01/note.txt", "a/2024-02/1.MP4", "a/2024-11/1.mp4",
        "b/2024-01/1.mkv", "b/2024-01/deep/2.mp4", "b[1]/x.mp4", "a-b/1.mp4", "top.mp4",
    ):  # fmt: skip
        path = tmp_path / "cams" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "cams"


def paths(given, output="/nowhere"):
    return [file.relative_path for file in find_files(str(given), str(output))]


def test_a_folder_comes_in_the_order_of_paths_without_the_results(cams):
    whole = paths(cams)
    assert whole == sorted(whole) and len(whole) == 8
    assert paths(cams, cams / "b") == [path for path in whole if not path.startswith("b/")]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*/2024-0?/*", ["a/2024-01/1.mp4", "a/2024-02/1.MP4", "b/2024-01/1.mkv"]),
        ("*/2024-0?/*.mp4", ["a/2024-01/1.mp4"]),
        ("[ab]/2024-01/**", ["a/2024-01/1.mp4", "b/2024-01/1.mkv", "b/2024-01/deep/2.mp4"]),
        ("b/**/*.mp4", ["2024-01/deep/2.mp4"]),  # below the folders before the first wildcard
        ("*.mp4", ["top.mp4"]),
        ("b[1]", ["x.mp4"]),  # a folder of this name is there
    ],
)
def test_a_pattern(cams, pattern, expected):
    assert paths(cams / pattern) == expected


def test_a_pattern_looks_into_no_folder_that_cannot_match(cams, monkeypatch):
    looked, scandir = [], os.scandir

    def counted(path):
        looked.append(os.path.relpath(path, cams))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    assert paths(cams / "a/*/1.mp4") == ["2024-01/1.mp4", "2024-11/1.mp4"]
    assert sorted(looked) == ["a", "a/2024-01", "a/2024-02", "a/2024-11"]


def test_ids_of_a_pattern_are_those_of_its_root(cams):
    assert set(paths(cams / "*/*/*.mp4")) < set(paths(cams))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("none*", "a pattern matches files"),
        ("a**/x", r"'\*\*' can only be an entire path component"),
        ("note", "check the spelling"),
    ],
)
def test_what_finds_nothing_says_why(cams, given, words):
    with pytest.raises(StorageError, match=words):
        find_files(str(cams / given), "/nowhere")


def test_no_video_names_the_folder(tmp_path):
    with pytest.raises(StorageError, match=f"no video in {tmp_path} or a folder below it"):
        find_files(str(tmp_path), str(tmp_path / "out"))


def test_a_place_that_cannot_be_listed_is_told_of_and_the_others_come(cams, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("2024-01"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    (cams / "a" / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"")
    monkeypatch.setattr(os, "scandir", refuse)
    found = list(find_files(str(cams), "/nowhere"))
    lost = [file for file in found if isinstance(file, Unread)]
    assert len(lost) == 3
    assert sum("Permission denied" in one.reason for one in lost) == 2
    assert sum("is not UTF-8" in one.reason for one in lost) == 1
    assert len(found) - len(lost) == 5


def written(path, names, column="uri", **more):
    rows = [str(name) for name in names]
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"n": list(range(len(rows))), column: rows, **more}), path)
    elif path.suffix == ".csv":
        path.write_text("n," + column + "\n" + "".join(f'{i},"{r}"\n' for i, r in enumerate(rows)))
    else:
        path.write_text("\n".join(rows) + "\n\n")
    return path


@pytest.mark.parametrize("ending", ["parquet", "csv", "txt"])
@pytest.mark.parametrize("column", ["uri", "path"])
def test_a_list(cams, tmp_path, ending, column):
    names = ["top.mp4", cams / "a/2024-01/1.mp4", "./b/../b/2024-01/1.mkv", "top.mp4"]
    found = paths(f"@{written(cams / f'list.{ending}', names, column)}")
    assert found == ["top.mp4", "a/2024-01/1.mp4", "b/2024-01/1.mkv", "top.mp4"]
    assert found[:2] == [path for path in paths(cams) if path in found[:2]][::-1]
    # Of another folder: the whole path, whatever else is listed.
    other = written(tmp_path / f"list.{ending}", names[1:2])
    assert paths(f"@{other}") == ["cams/a/2024-01/1.mp4"]


def test_a_list_far_from_its_files_keeps_whole_paths(cams, tmp_path):
    (tmp_path / "lists").mkdir()
    listed = written(tmp_path / "lists" / "l.txt", [cams / "top.mp4", "../cams/top.mp4"])
    assert paths(f"@{listed}") == [f"{cams}/top.mp4".lstrip("/")] * 2


def test_rows_of_a_table_of_ours_keep_their_paths(cams, tmp_path):
    kept = {"relative_path": ["2024/top.mp4"]}
    listed = written(tmp_path / "l.parquet", [cams / "top.mp4"], **kept)
    assert paths(f"@{listed}") == ["2024/top.mp4"]


def test_what_a_list_names_and_is_not_there_is_told_of(cams):
    listed = written(cams / "l.txt", ["none.mp4", "top.mp4", "a"])
    found = list(find_files(f"@{listed}", "/nowhere"))
    assert [type(file) is Unread for file in found] == [True, False, True]
    assert found[0].relative_path == "none.mp4" and "No such file" in found[0].reason
    assert "it is a folder" in found[2].reason
    with pytest.raises(StorageError, match=r"none\.mp4"):
        find_files(f"@{written(cams / 'l.txt', ['none.mp4'])}", "/nowhere")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("l.txt", b"\n\n", "no path in the list"),
        ("l.csv", b"uri\n", "no path in the list"),
        ("l.csv", b"name,size\na,1\n", "its columns are name, size; name the one"),
        ("l.csv", b"n,uri\n1,\n", "row 1 has no path"),
        ("l.csv", b"", "its columns are none"),
        ("l.parquet", b"PAR", "check that it is a .parquet file"),
        ("l.txt", b"caf\xe9.mp4\n", "in UTF-8"),
        ("l.json", b"[]", "a list is a .parquet, .csv or .txt file"),
        ("none.txt", None, "check the spelling"),
    ],
)
def test_a_bad_list_is_refused(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(StorageError, match=words):
        find_files(f"@{tmp_path / name}", "/nowhere")
