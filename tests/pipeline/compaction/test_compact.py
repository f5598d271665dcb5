"""Compaction: each row once for every reader, whatever is killed, doubled or added meanwhile."""

import random
import shutil
import tempfile
from contextlib import suppress
from itertools import count, pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.compaction import merge
from pipeline.compaction import run as compaction_run
from pipeline.compaction.run import CompactionRefused
from pipeline.storage import files as storage
from pipeline.storage.compacted import MERGED, compacted_ids, newest_commit
from pipeline.storage.errors import StorageError
from pipeline.storage.reading import read_video, table_files
from pipeline.storage.schema import table_uri
from tests.pipeline.compaction.conftest import (
    VIDEOS,
    KilledError,
    everything,
    of,
    on_write,
    run,
    sorted_rows,
)


def single_files(output):
    return [path for table in MERGED for path in Path(output).glob(f"{table}/*.parquet")]


def data_files(output):
    return [
        path for table in MERGED for path in Path(output).glob(f"compacted/{table}/**/*.parquet")
    ]


@pytest.mark.parametrize("partition", ["none", "folder", "day"])
def test_rows_stay_what_they_were(made, tmp_path, partition):
    made.copy(tmp_path, made.videos)
    before = {table: sorted_rows(tmp_path, table) for table in MERGED}
    done = run(tmp_path, partition)
    assert (done.videos, done.skipped) == (VIDEOS, {})
    assert {table: len(rows) for table, rows in before.items()} == done.rows
    for table in MERGED:
        assert sorted_rows(tmp_path, table).equals(before[table])
    assert not single_files(tmp_path)
    assert sorted(compacted_ids(str(tmp_path))) == sorted(made.videos)
    assert len(list((tmp_path / "compacted").glob("*.json"))) == 1
    for video_id in made.videos:
        for table in MERGED:
            source = Path(table_uri(str(made.folder), table, video_id))
            rows = read_video(str(tmp_path), table, video_id)
            assert rows.equals(pq.read_table(source)) if source.exists() else len(rows) == 0


def test_files_are_sorted_so_that_statistics_prune(made, tmp_path, monkeypatch):
    monkeypatch.setattr(merge, "GROUP_ROWS", 700)
    made.copy(tmp_path, made.videos)
    run(tmp_path, file_mb=100)
    (uri,) = table_files(str(tmp_path), "tracks")
    file = pq.ParquetFile(uri)
    groups = [file.metadata.row_group(n) for n in range(file.num_row_groups)]
    assert [group.num_rows for group in groups[:-1]] == [700] * (len(groups) - 1)
    ranges = [(g.column(0).statistics.min, g.column(0).statistics.max) for g in groups]
    assert all(a[1] <= b[0] for a, b in pairwise(ranges))
    assert [c.column_index for c in groups[0].sorting_columns] == [0, 1, 3]
    rows = file.read(columns=["video_id", "frame_index", "track_id"])
    assert rows.equals(rows.sort_by([(name, "ascending") for name in rows.column_names]))


def test_a_second_run_changes_nothing_and_a_third_adds_what_is_new(made, whole, tmp_path):
    made.copy(tmp_path, made.videos[:5])
    run(tmp_path)
    files = set(data_files(tmp_path))
    again = run(tmp_path)
    assert (again.videos, again.sets) == (0, 0)
    assert set(data_files(tmp_path)) == files
    made.copy(tmp_path, made.videos[5:])
    third = run(tmp_path)
    assert third.videos == VIDEOS - 5
    assert everything(tmp_path) == whole
    assert not single_files(tmp_path)


def test_small_sets_do_not_pile_up(made, whole, tmp_path):
    for video_id in made.videos:
        made.copy(tmp_path, [video_id])
        run(tmp_path, file_mb=100)
    assert len(newest_commit(str(tmp_path)).sets) == 1
    assert len(data_files(tmp_path)) == len(MERGED)
    assert everything(tmp_path) == whole


def test_videos_that_are_not_done_stay_as_they_are(made, whole, tmp_path):
    made.copy(tmp_path, made.videos)
    Path(table_uri(str(tmp_path), "videos", made.videos[0])).unlink()
    assert run(tmp_path).videos == VIDEOS - 1
    assert everything(tmp_path) == of(whole, made.videos[1:])
    assert Path(table_uri(str(tmp_path), "tracks", made.videos[0])).exists()


@pytest.mark.parametrize("partition", ["none", "folder"])
def test_a_reader_sees_each_row_once_at_every_moment(made, whole, tmp_path, monkeypatch, partition):
    """Before each change, a reader counts all rows; new videos come in the middle."""
    made.copy(tmp_path, made.videos[:6])
    expected = list(made.videos[:6])
    looks = [0]

    def look():
        looks[0] += 1
        if looks[0] == 12:
            made.copy(tmp_path, made.videos[6:])
            expected.extend(made.videos[6:])
        assert everything(tmp_path) == of(whole, expected)

    with monkeypatch.context() as patch:
        on_write(patch, look)
        run(tmp_path, partition)
        run(tmp_path, partition)
    assert looks[0] > 40
    assert everything(tmp_path) == whole


def test_a_reader_that_listed_before_the_commit_finds_its_files(made, tmp_path, monkeypatch):
    """All that was listed at any time before the first removal can be opened until then."""
    made.copy(tmp_path, made.videos)
    listed, removals = set(), [0]
    remove = storage.remove

    def look():
        if not removals[0]:
            listed.update(uri for table in MERGED for uri in table_files(str(tmp_path), table))

    def check(uri):
        if not removals[0]:
            assert all(Path(path).exists() for path in listed)
        removals[0] += 1
        remove(uri)

    monkeypatch.setattr(storage, "remove", check)
    on_write(monkeypatch, look)
    run(tmp_path, keep_s=2.0)
    assert removals[0] and len(listed) > 3 * VIDEOS


@settings(max_examples=12)
@given(
    kills=st.lists(st.integers(1, 60), max_size=4),
    partition=st.sampled_from(["none", "folder", "day"]),
    file_mb=st.sampled_from([0.05, 0.2, 100.0]),
    seed=st.integers(0, 1000),
)
def test_killed_anywhere_and_run_again(made, whole, kills, partition, file_mb, seed):
    """Runs killed at some change, with new videos and late files of a second driver between."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        output, changes, limit = Path(name) / "out", [0], [0]

        def die():
            changes[0] += 1
            if changes[0] == limit[0]:
                raise KilledError

        on_write(patch, die)
        done: set[str] = set()
        for kill in [*kills, 0]:
            new = draw.sample(made.videos, draw.randrange(VIDEOS))
            made.copy(output, new)  # some of them are merged already: a second driver was slow
            done.update(new)
            changes[0], limit[0] = 0, kill
            with suppress(KilledError):
                run(output, partition, file_mb)
            assert everything(output) == of(whole, done)
        assert not single_files(output)
        assert sorted(compacted_ids(str(output))) == sorted(done)
        sets = newest_commit(str(output)).sets
        assert len(data_files(output)) == len(sets) * len(MERGED)


@pytest.mark.parametrize("moment", [1, 4, 6, 9, 20, 30])
def test_of_two_at_once_the_later_one_takes_over(made, whole, tmp_path, monkeypatch, moment):
    """Another run, from begin to end, before a change of this one."""
    made.copy(tmp_path, made.videos)
    changes = count(1)

    def begin_another():
        if next(changes) == moment:
            run(tmp_path)

    # Before the first commit of this run, and after its last, nobody minds.
    refused = pytest.raises(CompactionRefused, match="another vsdmot compact")
    with refused if 4 <= moment <= 9 else suppress(CompactionRefused):
        on_write(monkeypatch, begin_another)
        run(tmp_path)
    assert next(changes) > moment
    assert everything(tmp_path) == whole
    run(tmp_path)
    assert everything(tmp_path) == whole
    assert len(data_files(tmp_path)) == len(newest_commit(str(tmp_path)).sets) * len(MERGED)


@pytest.mark.parametrize("partition", ["none", "folder"])
def test_a_run_that_is_overtaken_before_it_reads_says_so(
    made, whole, tmp_path, monkeypatch, partition
):
    """The other run has removed what this one has listed."""
    made.copy(tmp_path, made.videos)
    real = compaction_run.in_order

    def overtaken(*arguments):
        monkeypatch.setattr(compaction_run, "in_order", real)
        run(tmp_path, partition)
        return real(*arguments)

    monkeypatch.setattr(compaction_run, "in_order", overtaken)
    with pytest.raises(CompactionRefused, match="another vsdmot compact"):
        run(tmp_path, partition)
    assert everything(tmp_path) == whole


@pytest.mark.parametrize("damage", ["cut", "missing", "column", "page"])
@pytest.mark.parametrize("table", ["tracks", "frames"])
def test_a_damaged_video_is_left_and_named(made, whole, tmp_path, damage, table):
    made.copy(tmp_path, made.videos)
    path = Path(table_uri(str(tmp_path), table, made.videos[3]))
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "missing":
        path.unlink()
    elif damage == "page":
        data = bytearray(path.read_bytes())
        data[40:400] = bytes(360)
        path.write_bytes(data)
    else:
        pq.write_table(pq.read_table(path).drop_columns("time_s"), path)
    done = run(tmp_path, "folder")
    assert list(done.skipped) == [made.videos[3]]
    assert f"its file of {table}" in done.skipped[made.videos[3]]
    others = [video_id for video_id in made.videos if video_id != made.videos[3]]
    assert sorted(compacted_ids(str(tmp_path))) == sorted(others)
    assert Path(table_uri(str(tmp_path), "videos", made.videos[3])).exists()


@pytest.mark.parametrize("partition", ["none", "folder"])
def test_a_damaged_row_of_a_video_is_left_and_named(made, tmp_path, partition):
    made.copy(tmp_path, made.videos)
    path = Path(table_uri(str(tmp_path), "videos", made.videos[3]))
    path.write_bytes(path.read_bytes()[:-9])
    done = run(tmp_path, partition)
    assert list(done.skipped) == [made.videos[3]]
    assert "videos:" in done.skipped[made.videos[3]]
    assert sorted(compacted_ids(str(tmp_path))) == sorted(set(made.videos) - {made.videos[3]})


def test_a_dead_letter_of_a_merged_video_is_removed(made, tmp_path):
    """As of a second driver that met a deadline on a video that the first one tracked."""
    made.copy(tmp_path, made.videos[:2])
    run(tmp_path)
    for video_id in (made.videos[0], "another"):
        storage.write_atomic(table_uri(str(tmp_path), "dead_letters", video_id), b"letter")
    run(tmp_path)
    assert storage.list_stems(f"{tmp_path}/dead_letters") == {"another"}


def test_folders_that_cannot_be_compacted(made, tmp_path):
    with pytest.raises(CompactionRefused, match=r"no output of vsdmot track: run\.json is missing"):
        run(tmp_path)
    (tmp_path / "run.json").write_text('{"job": "eval", "schema_version": 2}')
    with pytest.raises(CompactionRefused, match="written by vsdmot eval"):
        run(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(CompactionRefused, match="is not a record of this project"):
        run(tmp_path)
    made.copy(tmp_path, made.videos[:2])
    run(tmp_path, "folder")
    with pytest.raises(CompactionRefused, match="give partition=folder"):
        run(tmp_path, "day")


def test_a_damaged_merged_file_is_an_error_that_names_it(made, tmp_path):
    made.copy(tmp_path, made.videos[:2])
    run(tmp_path, file_mb=100)
    (uri,) = table_files(str(tmp_path), "frames")
    Path(uri).write_bytes(Path(uri).read_bytes()[:-9])
    made.copy(tmp_path, made.videos[2:])
    with pytest.raises(StorageError, match="if this merged file is damaged"):
        run(tmp_path, file_mb=100)


def test_readers_of_others(made, tmp_path):
    """DuckDB, Polars and pandas take the list, also with merged files beside single ones."""
    duckdb = pytest.importorskip("duckdb")
    made.copy(tmp_path, made.videos[:5])
    run(tmp_path, "folder")
    made.copy(tmp_path, made.videos[5:])
    files = table_files(str(tmp_path), "tracks")
    expected = len(sorted_rows(made.folder, "tracks"))
    assert any("folder=" in file for file in files) and len(files) > 3
    sql = f"SELECT count(*) FROM read_parquet({files!r})"
    assert duckdb.connect().execute(sql).fetchone() == (expected,)
    assert len(pq.read_table(files, partitioning=None)) == expected
    pd = pytest.importorskip("pandas")
    assert len(pd.read_parquet(files)) == expected
    pl = pytest.importorskip("polars")
    assert pl.scan_parquet(files).select(pl.len()).collect().item() == expected


def test_a_query_in_sql_alone(made, tmp_path):
    """The SQL of docs/how-to/read-tables.md: without Python, from the newest commit."""
    duckdb = pytest.importorskip("duckdb")
    made.copy(tmp_path, made.videos)
    run(tmp_path, "folder")
    sql = """
        SET VARIABLE files = (
            SELECT list('OUT/compacted/tracks/' || s.path || '.parquet')
            FROM (SELECT unnest(max_by(sets, number)) AS s FROM read_json('OUT/compacted/*.json')));
        SELECT count(*) FROM read_parquet(getvariable('files'))
    """
    shutil.copyfile(  # an older commit that was not removed yet
        next((tmp_path / "compacted").glob("*.json")), tmp_path / "compacted" / "00000000.json"
    )
    found = duckdb.connect().execute(sql.replace("OUT", str(tmp_path))).fetchone()
    assert found == (len(sorted_rows(made.folder, "tracks")),)
