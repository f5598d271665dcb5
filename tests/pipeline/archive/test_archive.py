"""Going through an archive: what is read, what is left out, and what the manifest keeps."""

import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.archive import archive as module
from pipeline.archive import manifest as manifest_module
from pipeline.archive.archive import Archive, read_here
from pipeline.archive.id_set import IdSet
from pipeline.archive.inputs import find_files
from pipeline.archive.manifest import Manifest
from pipeline.archive.survey import Unread, survey
from pipeline.storage.errors import StorageError
from pipeline.storage.files import list_stems, list_videos
from pipeline.storage.schema import MANIFEST
from pipeline.video.limits import Limits
from tests.videos import write_empty, write_text, write_video


class Gone:
    """One pass over an archive."""

    def __init__(self, root, output, done=(), dead=(), again=False, run="run", **options):
        self.read, self.lost, self.manifest = [], [], None

        def headers(files):
            self.read += [file.relative_path for file in files]
            return list(survey(files, 2))

        def unread(path, reason):
            self.lost.append((path, reason))

        def finished(source):
            self.manifest = pq.read_table(source)

        with Manifest(str(output), run, again) as manifest:
            archive = Archive(
                str(output),
                manifest,
                done=IdSet(done),
                dead=IdSet(dead),
                read=headers,
                unread=unread,
                **options,
            )
            files = find_files(str(root), str(output))
            self.videos = list(archive.videos(files, finished))
        self.counts = archive.counts

    @property
    def paths(self):
        return [video.relative_path for video in self.videos]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    for number in range(3):
        write_video(folder / f"{number}.mp4", frames=3 + number)
    write_text(folder / "text.mp4")
    write_empty(folder / "zero.mp4")
    return folder


@pytest.fixture
def root(made, tmp_path):
    return shutil.copytree(made, tmp_path / "in")


ALL = ["0.mp4", "1.mp4", "2.mp4", "text.mp4", "zero.mp4"]


def stored(output):
    return pq.read_table(output / "manifest" / "manifest.parquet")


def test_manifest_and_dead_letters_are_left_and_headers_are_read_once(root, tmp_path):
    output = tmp_path / "out"
    first = Gone(root, output)
    assert first.read == ALL and first.paths == ALL[:3]
    assert (first.counts.files, first.counts.dead, first.counts.whole) == (5, 2, True)
    assert len(list_stems(f"{output}/dead_letters")) == 2
    assert stored(output).equals(first.manifest) and len(first.manifest) == 5
    assert first.manifest.schema.equals(MANIFEST)
    written = os.stat(output / "manifest" / "manifest.parquet").st_mtime_ns
    dead = list_stems(f"{output}/dead_letters")
    second = Gone(root, output, dead=dead)
    assert second.read == [] and second.videos == first.videos
    assert (second.counts.skipped, second.counts.dead_before, second.counts.dead) == (2, 2, 0)
    assert os.stat(output / "manifest" / "manifest.parquet").st_mtime_ns == written  # no change


def test_what_is_done_is_left_out_without_a_look_at_the_file(root, tmp_path):
    output = tmp_path / "out"
    done = [video.video_id for video in Gone(root, output).videos]
    for name in ALL[:2]:  # would have another id if they were read
        changed = os.stat(root / name)
        (root / name).write_bytes(bytes(changed.st_size))
        os.utime(root / name, ns=(changed.st_atime_ns, changed.st_mtime_ns))
    again = Gone(root, output, done=done[:2])
    assert (again.paths, again.read, again.counts.skipped) == (["2.mp4"], [], 2)


def test_a_changed_file_is_read_again_and_a_touched_one_keeps_its_id(root, tmp_path):
    output = tmp_path / "out"
    before = {video.relative_path: video for video in Gone(root, output).videos}
    write_video(root / "1.mp4", frames=9)
    os.utime(root / "2.mp4", ns=(1, 1))
    after = Gone(root, output)
    assert after.read == ["1.mp4", "2.mp4"]
    now = {video.relative_path: video for video in after.videos}
    assert now["1.mp4"].video_id != before["1.mp4"].video_id
    assert now["2.mp4"] == before["2.mp4"]
    assert len(stored(output)) == 5


def test_new_files_come_into_the_manifest_and_old_ones_leave_it(root, tmp_path):
    output = tmp_path / "out"
    Gone(root, output)
    os.remove(root / "0.mp4")
    write_video(root / "new.mp4", frames=2)
    gone = Gone(root, output)
    assert gone.read == ["new.mp4"] and gone.paths == ["1.mp4", "2.mp4", "new.mp4"]
    assert sorted(stored(output)["relative_path"].to_pylist()) == sorted([*ALL[1:], "new.mp4"])


def test_an_archive_that_moved_is_not_read_again(root, tmp_path):
    output = tmp_path / "out"
    Gone(root, output)
    moved = root.rename(tmp_path / "moved")
    gone = Gone(moved, output)
    assert gone.read == []
    assert {video.uri for video in gone.videos} == {str(moved / name) for name in ALL[:3]}
    assert set(stored(output)["uri"].to_pylist()) == {str(moved / name) for name in ALL}


def test_dead_letters_are_tried_again_when_asked_for(root, tmp_path):
    output = tmp_path / "out"
    Gone(root, output)
    write_video(root / "zero.mp4", frames=2)
    gone = Gone(root, output, again=True)
    assert gone.read == ["text.mp4", "zero.mp4"] and gone.paths == [*ALL[:3], "zero.mp4"]


def test_narrower_limits_refuse_what_an_earlier_run_has_read(root, tmp_path):
    output = tmp_path / "out"
    Gone(root, output)
    gone = Gone(root, output, limits=Limits(max_frames=3))
    assert gone.read == [] and gone.paths == ["0.mp4"]
    letters = [pq.read_table(path).to_pylist()[0] for path in output.glob("dead_letters/*")]
    refused = [row for row in letters if row["message"].startswith("refused: ")]
    assert sorted(row["relative_path"] for row in refused) == ["1.mp4", "2.mp4"]


def test_a_file_that_is_listed_twice_is_one_video(root, tmp_path):
    (root / "l.txt").write_text("0.mp4\n1.mp4\n0.mp4\n")
    for _ in range(2):
        gone = Gone(f"@{root / 'l.txt'}", tmp_path / "out")
        assert gone.paths == ["0.mp4", "1.mp4"] and gone.counts.files == 2
    assert len(stored(tmp_path / "out")) == 2


def test_files_that_storage_fails_on_are_counted_and_named(root, tmp_path, monkeypatch):
    (root / "l.txt").write_text("0.mp4\nnone.mp4\n")
    gone = Gone(f"@{root / 'l.txt'}", tmp_path / "out")
    assert (gone.paths, gone.counts.unread) == (["0.mp4"], 1)
    assert gone.lost[0][0] == "none.mp4" and "No such file" in gone.lost[0][1]
    # If it fails on all of them, something else is wrong, and nothing is written.
    monkeypatch.setattr(
        "tests.pipeline.archive.test_archive.survey",
        lambda files, threads: [Unread(file.relative_path, "connection lost") for file in files],
    )
    with pytest.raises(StorageError, match="connection lost"):
        Gone(root, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.fixture
def many(monkeypatch, tmp_path):
    """An archive of many files and sizes so small that it takes many batches."""
    monkeypatch.setattr(module, "_BATCH", 4)
    monkeypatch.setattr(module, "_AHEAD", 24)
    monkeypatch.setattr(module, "_LARGEST", 1)
    monkeypatch.setattr(manifest_module, "_GROUP_ROWS", 10)
    (tmp_path / "many").mkdir()
    for number in range(50):
        write_text(tmp_path / "many" / f"{number:02}.mp4")
    return tmp_path / "many"


def test_a_run_that_dies_leaves_what_it_has_read(many, tmp_path):
    output = tmp_path / "out"
    read = []

    def headers(files):
        if len(read) >= 30:
            raise KeyboardInterrupt
        read.extend(file.relative_path for file in files)
        return list(survey(files, 2))

    with Manifest(str(output), "first") as manifest:
        archive = Archive(
            str(output), manifest, done=IdSet(), dead=IdSet(), read=headers, unread=print
        )
        videos = archive.videos(find_files(str(many), str(output)))
        with pytest.raises(KeyboardInterrupt):
            list(videos)
    parts = [pq.read_table(path) for path in sorted(output.glob("manifest/*.parquet"))]
    kept = set(pa.concat_tables(parts)["relative_path"].to_pylist())
    assert len(parts) >= 2 and 20 <= len(kept) <= len(read) and kept <= set(read)
    gone = Gone(many, output, run="second")
    assert set(gone.read) == {f"{n:02}.mp4" for n in range(50)} - kept
    assert list_stems(f"{output}/manifest") == {"manifest"}
    assert sorted(stored(output)["relative_path"].to_pylist()) == sorted(kept | set(gone.read))


@pytest.mark.parametrize("earlier", [False, True])
def test_a_dry_run_finds_the_same_and_writes_nothing(root, tmp_path, earlier):
    output = tmp_path / "out"
    if earlier:
        (root / "0.mp4").rename(tmp_path / "0.mp4")
        Gone(root, output)
        (tmp_path / "0.mp4").rename(root / "0.mp4")
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    dead = []
    with Manifest(str(output) if earlier else "", "dry", dry=True) as manifest:
        archive = Archive(
            str(output), manifest, done=IdSet(), dead=IdSet(), dead_letter=dead.append,
            read=lambda files: list(survey(files, 2)), unread=print,
        )  # fmt: skip
        videos = [v.relative_path for v in archive.videos(find_files(str(root), ""))]
    assert sorted(videos) == ["0.mp4", "1.mp4", "2.mp4"]
    assert sorted(file.relative_path for file in dead) == ["text.mp4", "zero.mp4"]
    assert archive.counts.dead == 2
    assert before == {path: path.stat().st_mtime_ns for path in output.rglob("*")}


def test_rows_of_an_earlier_run_are_found_in_any_order(many, tmp_path):
    output = tmp_path / "out"
    Gone(many, output)
    files = list(list_videos(str(many)))
    with Manifest(str(output), "run") as manifest:
        some = [*files[::-7], files[3]]
        known, rows = manifest.look_up(some)
        assert known.all()
        assert rows["relative_path"].to_pylist() == [file.relative_path for file in some]


def test_large_files_come_before_small_ones(many):
    write_text(many / "49.mp4").write_text("long" * 999)
    batches = list(module._large_ones_early(find_files(str(many), "/nowhere")))
    batch_of = {file.relative_path: n for n, batch in enumerate(batches) for file in batch}
    assert sorted(batch_of) == [f"{n:02}.mp4" for n in range(50)]
    assert sum(map(len, batches)) == 50
    assert batch_of["49.mp4"] < batch_of["44.mp4"] <= batch_of["48.mp4"]


def test_a_manifest_of_another_schema_is_not_used(root, tmp_path):
    output = tmp_path / "out"
    (output / "manifest").mkdir(parents=True)
    old = stored_by_an_older_version(output)
    gone = Gone(root, output)
    assert gone.read == ALL and not stored(output).equals(old)


def stored_by_an_older_version(output):
    table = pa.table({"video_id": ["a"], "uri": ["/a.mp4"]})
    pq.write_table(table, output / "manifest" / "manifest.parquet")
    return table


def test_a_damaged_manifest_is_named_with_a_remedy(root, tmp_path):
    (tmp_path / "out" / "manifest").mkdir(parents=True)
    (tmp_path / "out" / "manifest" / "manifest.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(StorageError, match=r"manifest\.parquet: .*remove it, then the headers"):
        Gone(root, tmp_path / "out")


def test_headers_read_here(root):
    with read_here(2, Limits()) as read:
        files = list(list_videos(str(root)))
        found = read(files)
    assert [item.relative_path for item in found] == ALL
