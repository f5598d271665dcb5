"""One check for every fault: each input done xor dead, no row twice, equal to the reference."""

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage import files as storage
from pipeline.storage.compacted import MERGED, newest_commit

KEYS = {
    "tracks": ("video_id", "frame_index", "track_id"),
    "frames": ("video_id", "frame_index"),
    "track_summary": ("video_id", "track_id"),
    "videos": ("video_id",),
    "dead_letters": ("video_id",),
}
# Of `videos` and `dead_letters`, what does not depend on when and how fast a run was.
STABLE = {
    "videos": ("video_id", "relative_path", "status", "frames_decoded", "num_tracks"),
    "dead_letters": ("video_id", "relative_path", "stage", "kind"),
}

# Of the whole session: case, injected, rows lost, rows twice, seconds. Here, not in conftest.py,
# of which pytest and an import make two modules.
ROWS: list[tuple[str, str, int, int, float]] = []


@dataclass
class Outcome:
    lost: int = 0
    twice: int = 0
    wrong: list[str] = field(default_factory=list)


def rows(output: str, table: str) -> list[dict]:
    """Every row of a table, by listing and reading as anyone would."""
    stems = sorted(storage.list_stems(f"{output}/{table}"))
    files = [f"{output}/{table}/{stem}.parquet" for stem in stems]
    commit = newest_commit(output)
    if commit is not None and table in MERGED:
        files += [each.uri(output, table) for each in commit.sets]
    found = []
    for uri in files:
        found += pq.read_table(pa.BufferReader(storage.read_bytes(uri))).to_pylist()
    return found


def compare(output: str, reference: dict[str, list[dict]]) -> Outcome:
    """An output against the rows that an undisturbed run gave."""
    outcome = Outcome()
    ids = {}
    for table, key in KEYS.items():
        found = rows(output, table)
        ids[table] = {row["video_id"] for row in found}
        names = STABLE.get(table, tuple(reference[table][0]) if reference[table] else key)
        got = Counter(tuple(row[name] for name in names) for row in found)
        want = Counter(tuple(row[name] for name in names) for row in reference[table])
        outcome.lost += (want - got).total()
        keys = Counter(tuple(row[name] for name in key) for row in found)
        outcome.twice += keys.total() - len(keys)
        extra = got - want
        if extra:
            outcome.wrong.append(f"{table}: {extra.total()} rows too many, as {next(iter(extra))}")
    both = ids["videos"] & ids["dead_letters"]
    outcome.twice += len(both)
    known = {row["video_id"] for row in rows(output, "manifest")}
    neither = known - ids["videos"] - ids["dead_letters"]
    outcome.lost += len(neither)
    return outcome


def read(output: str) -> dict[str, list[dict]]:
    """All tables of a reference."""
    return {table: rows(output, table) for table in KEYS}
