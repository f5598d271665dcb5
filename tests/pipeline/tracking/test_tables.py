"""The tables of a video: memory that its length does not move, files that do not depend on luck."""

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.net.config import ModelConfig
from pipeline.storage.schema import FRAMES, TRACKS
from pipeline.tracking import memory_estimate as memory
from pipeline.tracking import spool
from pipeline.tracking.spool import SpoolError, TableSpool
from pipeline.tracking.tables import VideoTables, WindowRows
from pipeline.video.limits import Limits
from tests.pipeline.archive.test_plan import INFO, info

PEOPLE = 20
GROUP = 2048


def windows(frames, size=256):
    """A video of twenty people, each there for a hundred frames, with made-up quality."""
    for start in range(0, frames, size):
        index = np.arange(start, min(start + size, frames))
        row = np.repeat(np.arange(len(index)), PEOPLE)
        person = np.tile(np.arange(PEOPLE), len(index))
        tracks = {name: np.zeros(len(row), np.float32) for name in TRACKS.names[1:]}
        tracks |= {"frame_index": index[row], "time_s": index[row] / 25}
        tracks |= {"track_id": index[row] // 100 * PEOPLE + person}
        tracks |= {side: np.ones(len(row), np.float32) for side in "wh"}
        tracks |= {"class_name": np.full(len(row), "person", object)}
        frame = {name: np.zeros(len(index), np.float32) for name in FRAMES.names[1:]}
        frame |= {"cut": np.zeros(len(index), bool)}
        frame |= {"frame_index": index, "time_s": index / 25}
        frame |= {"encoded": index % 3 == 0}
        frame |= {"quality": (index * 7919 % 1000 / 1000).astype(np.float32)}
        yield WindowRows(tracks, frame)


def summed_up(frames):
    with VideoTables(INFO) as tables:
        for window in windows(frames):
            tables.add(window)
        read = [pq.read_table(table.finished()) for table in (tables.tracks, tables.frames)]
        measured = {"frames_decoded": frames, "elapsed_s": 2.0}
        return tables.summary(0.5, measured), *read


def test_memory_is_that_of_a_row_group_however_long_the_video(monkeypatch):
    monkeypatch.setattr(spool, "GROUP_ROWS", GROUP)

    def peak(frames):
        pool = pa.default_memory_pool()
        arrow = 0
        tracemalloc.start()
        with VideoTables(INFO) as tables:
            for window in windows(frames):
                tables.add(window)
                arrow = max(arrow, pool.bytes_allocated())
            tables.summary(0.5, {"frames_decoded": frames, "elapsed_s": 1.0})
            tables.tracks.finished(), tables.frames.finished()
        python = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return python, arrow

    peak(1000)  # what is loaded and cached once
    short, long = peak(1_000), peak(8_000)
    # 7,000 frames more: what may grow is 16 bytes a frame and what the footer says of each row
    # group. The 140,000 rows themselves take more than 7 MB.
    assert long[0] - short[0] < 500_000
    assert long[1] - short[1] < 500_000


def test_summary_of_tracks_reads_one_batch_of_rows_at_a_time(monkeypatch):
    """Eight times as long, with the same people: nothing more is in RAM."""
    monkeypatch.setattr(spool, "GROUP_ROWS", GROUP)
    monkeypatch.setattr(spool, "_BATCH_ROWS", GROUP)

    def peak(frames):
        with VideoTables(INFO) as tables:
            for window in windows(frames):
                window.tracks["track_id"] %= PEOPLE
                tables.add(window)
            tracemalloc.start()
            table = tables.track_summary(None)
            python = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert table["boxes"].to_pylist() == [frames] * PEOPLE
        return python

    peak(1000)  # what is loaded once
    assert peak(8000) - peak(1000) < 200_000  # the rows of the 7,000 take more than 7 MB


def test_summary_of_tracks_is_of_finished_ids(monkeypatch):
    """People of the second hundred frames get the ids of the first, and have a gap of none."""
    monkeypatch.setattr(spool, "_BATCH_ROWS", 77)
    with VideoTables(INFO) as tables:
        for window in windows(200):
            tables.add(window)
        tables.relabel({PEOPLE + person: person for person in range(PEOPLE - 1)})
        table = tables.track_summary(None).to_pandas()
    assert table.boxes.tolist() == [200] * (PEOPLE - 1) + [100, 100]
    assert table.rejoined.tolist() == [True] * (PEOPLE - 1) + [False, False]
    assert table.last_frame.tolist() == [199] * (PEOPLE - 1) + [99, 199]


def test_row_of_a_video_is_exact_over_row_groups(monkeypatch):
    monkeypatch.setattr(spool, "GROUP_ROWS", GROUP)
    row, tracks, frames = summed_up(1050)
    quality, tracks = frames["quality"].to_numpy(), tracks.to_pandas()
    assert len(frames) == row["frames_tracked"] == row["frames_decoded"] == 1050
    assert row["frames_encoded"] == 350
    assert frames["frame_index"].to_pylist() == list(range(1050))
    assert len(tracks) == 1050 * PEOPLE
    assert not tracks.duplicated(["frame_index", "track_id"]).any()
    order = tracks[["frame_index", "track_id"]]
    assert order.equals(order.sort_values(["frame_index", "track_id"], ignore_index=True))
    lengths = tracks.groupby("track_id").size()
    assert row["num_tracks"] == len(lengths) == 11 * PEOPLE
    assert row["track_length_mean"] == pytest.approx(lengths.mean())
    assert row["track_length_median"] == lengths.median()
    assert row["track_length_max"] == lengths.max() == 100
    assert [row[f"quality_p{p:02}"] for p in (5, 50, 95)] == list(
        np.percentile(quality, (5, 50, 95))
    )
    assert row["quality_mean"] == pytest.approx(quality.mean())
    assert row["low_quality_share"] == (quality < 0.5).mean()
    assert row["video_s"] == pytest.approx(1050 / 25)
    assert row["frames_per_second"] == 525


def test_tracks_get_the_ids_of_others(monkeypatch):
    """People of the first hundred frames come back, and rows stay sorted by frame and id."""
    monkeypatch.setattr(spool, "GROUP_ROWS", GROUP)
    monkeypatch.setattr(spool, "_BATCH_ROWS", 77)  # batches end within frames
    ids = {PEOPLE + person: PEOPLE - 1 - person for person in range(PEOPLE)}
    with VideoTables(INFO) as tables:
        for window in windows(300):
            tables.add(window)
        before = tables.summary(0.5, {"frames_decoded": 300, "elapsed_s": 1.0})
        tables.relabel(ids)
        row = tables.summary(0.5, {"frames_decoded": 300, "elapsed_s": 1.0})
        tracks = pq.read_table(tables.tracks.finished()).to_pandas()
    assert (before["num_tracks"], row["num_tracks"]) == (3 * PEOPLE, 2 * PEOPLE)
    assert row["track_length_max"] == 200
    assert set(tracks.track_id) == {*range(PEOPLE), *range(2 * PEOPLE, 3 * PEOPLE)}
    order = tracks[["frame_index", "track_id"]]
    assert len(order) == 300 * PEOPLE and not order.duplicated().any()
    assert order.equals(order.sort_values(["frame_index", "track_id"], ignore_index=True))


@settings(max_examples=30)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.integers(7, 60))
def test_file_does_not_depend_on_how_its_rows_came(sizes, group):
    whole = next(windows(sum(sizes), sum(sizes))).frames

    def written(sizes):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(spool, "GROUP_ROWS", group)
            with TableSpool(FRAMES, "v") as table:
                start = 0
                for size in sizes:
                    table.add(
                        {name: column[start : start + size] for name, column in whole.items()}
                    )
                    start += size
                return table.finished().read()

    data = written(sizes)
    assert data == written([sum(sizes)])
    file = pq.ParquetFile(pa.BufferReader(data))
    groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert sum(groups) == sum(sizes) and set(groups[:-1]) <= {group}
    read = file.read()
    assert read.schema.equals(FRAMES, check_metadata=True)
    assert read["quality"].to_numpy().tolist() == whole["quality"].tolist()
    assert set(read["video_id"].to_pylist()) == {"v"}


def test_table_without_rows_is_a_table():
    with TableSpool(TRACKS, "v") as table:
        read = pq.read_table(table.finished())
    assert len(read) == 0 and read.schema.equals(TRACKS, check_metadata=True)


def full_disk(**_):
    return Path("/dev/full").open("w+b")


def test_full_temporary_disk_says_where_and_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(spool, "GROUP_ROWS", GROUP)
    monkeypatch.setattr(spool.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(spool.tempfile, "TemporaryFile", full_disk)
    words = rf"rows of a in {tmp_path}: No space left on device; .*set TMPDIR"
    with VideoTables(INFO) as tables, pytest.raises(SpoolError, match=words):
        tables.add(next(windows(GROUP, GROUP)))


def test_no_temporary_folder_is_told(monkeypatch):
    def none(**_):
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(spool.tempfile, "TemporaryFile", none)
    with pytest.raises(SpoolError, match=r"No usable temporary directory.*set TMPDIR"):
        VideoTables(INFO)


def test_rows_leave_nothing_in_the_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(spool.tempfile, "tempdir", str(tmp_path))
    with VideoTables(INFO) as tables:
        tables.add(next(windows(10)))
        assert not list(tmp_path.iterdir())  # nor would it after a SIGKILL here


def test_estimate_of_memory_does_not_grow_with_the_rows():
    def rows(frames):
        return memory.estimate(ModelConfig(), 8, 32, [info("a", frames)], Limits()).rows

    day = 25 * 3600 * 24
    assert rows(1000) < rows(100_000) < 100 << 20
    assert rows(day) - rows(day // 2) == 64 * (day - day // 2)
