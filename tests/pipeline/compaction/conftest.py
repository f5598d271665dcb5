"""A finished run to compact, and what a reader of it must see."""

import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.compaction.config import CompactConfig
from pipeline.compaction.run import compact
from pipeline.runtime.stop import StopRequest
from pipeline.speed.queries.made_run import make_run
from pipeline.storage import files as storage
from pipeline.storage.compacted import MERGED
from pipeline.storage.reading import table_files
from pipeline.storage.schema import SEAMS, table_uri

WRITES = ("write_atomic", "publish", "create_if_absent", "remove")
VIDEOS = 8


class KilledError(BaseException):
    """Ends a run in this process where a signal would end its process."""


@dataclass(frozen=True)
class Made:
    """A folder of tables, with seams of one video, and the rows of each table by video."""

    folder: Path
    videos: list[str]

    def copy(self, target: Path, videos: list[str]) -> None:
        """Publish some videos as `track` does, the row of each last."""
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.folder / "run.json", target / "run.json")
        for video_id in videos:
            for table in MERGED:
                if (source := Path(table_uri(str(self.folder), table, video_id))).exists():
                    path = Path(table_uri(str(target), table, video_id))
                    path.parent.mkdir(exist_ok=True)
                    shutil.copyfile(source, path)


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Made:
    folder = tmp_path_factory.mktemp("made")
    videos = make_run(folder, VIDEOS, seed=5).videos
    seam = {"video_id": videos[2], "seam": 0, "time_s": 1.0, "frames_shared": 2}
    seam |= {"outcome": "left_alone", "gap_s": 0.0}
    (folder / "seams").mkdir()
    rows = pa.Table.from_pylist([seam, seam | {"seam": 1}], schema=SEAMS)
    pq.write_table(rows, folder / "seams" / f"{videos[2]}.parquet")
    return Made(folder, videos)


def run(output, partition="none", file_mb=0.2, keep_s=0.0):
    return compact(
        CompactConfig(str(output), partition=partition, file_mb=file_mb, keep_s=keep_s),
        StopRequest(),
    )


def on_write(monkeypatch, act):
    """Call `act` before each change of the output."""
    for name in WRITES:
        real = getattr(storage, name)

        def changed(*arguments, real=real, **options):
            act()
            return real(*arguments, **options)

        monkeypatch.setattr(storage, name, changed)


def seen(output, table) -> Counter:
    """Rows of each video, as a reader counts them that opens every file of the table."""
    found = Counter()
    for uri in table_files(str(output), table):
        with storage.open_binary(uri) as source:
            found.update(pq.read_table(source, columns=["video_id"])["video_id"].to_pylist())
    return found


def everything(output) -> dict[str, Counter]:
    return {table: seen(output, table) for table in MERGED}


def sorted_rows(output, table) -> pa.Table:
    """All rows of a table by video, with each video's rows in the order they have in its file."""
    parts = []
    for uri in table_files(str(output), table):
        with storage.open_binary(uri) as source:
            parts.append(pq.read_table(source))
    rows = pa.concat_tables(parts)
    rows = rows.append_column("place", pa.array(range(len(rows))))
    order = [("video_id", "ascending"), ("place", "ascending")]
    return rows.sort_by(order).drop_columns("place").combine_chunks()


@pytest.fixture(scope="session")
def whole(made) -> dict[str, Counter]:
    """What a reader of all videos must see."""
    return everything(made.folder)


def of(rows: dict[str, Counter], videos) -> dict[str, Counter]:
    """The part of some videos."""
    chosen = set(videos)
    return {t: Counter({v: n for v, n in c.items() if v in chosen}) for t, c in rows.items()}
