"""One compaction: list, merge group by group, commit, remove what was merged.

A run begins with a commit of its own that changes no table. Commits have numbers, and each number
is given once. So a run that began earlier cannot commit any more, and two runs never mix. No lock
is left behind by a run that was killed.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from pipeline.compaction.ahead import THREADS
from pipeline.compaction.config import CompactConfig
from pipeline.compaction.listing import find, in_order, stale_sets
from pipeline.compaction.merge import DamagedVideo, merge
from pipeline.compaction.plan import Group, groups, partition_folder
from pipeline.compaction.removal import Removal, remove_all
from pipeline.runtime.stop import StopRequest
from pipeline.storage import files as storage
from pipeline.storage.compacted import (
    MERGED,
    Commit,
    CompactedSet,
    commit_numbers,
    commit_uri,
    is_missing,
    newest_commit,
)
from pipeline.storage.errors import StorageError
from pipeline.storage.schema import SCHEMA_VERSION, table_uri

_SETS_A_COMMIT = 64  # most new sets that wait for their commit


class CompactionRefused(ValueError):
    """The folder cannot be compacted with these settings, or another run has taken over."""


@dataclass(slots=True)
class Compacted:
    """What one run did.

    Attributes:
        videos: Videos merged that had files of their own.
        sets: Sets written.
        sets_now: Sets that count at the end.
        removed: Files removed.
        rows: Rows written, by table.
        skipped: Reason why a video was left as it is, by id.
    """

    videos: int = 0
    sets: int = 0
    sets_now: int = 0
    removed: int = 0
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MERGED, 0))
    skipped: dict[str, str] = field(default_factory=dict)


def compact(
    config: CompactConfig,
    stop: StopRequest,
    found: Callable[[int], None] = lambda count: None,
    advance: Callable[[int], None] = lambda count: None,
    say: Callable[[str], None] = lambda text: None,
) -> Compacted:
    """Merge the files of all finished videos of an output.

    Args:
        config: The settings.
        stop: Checked between two groups.
        found: Called with the number of videos to merge.
        advance: Called with the number of videos after each group.
        say: Called with what the user should know.

    Raises:
        CompactionRefused: The folder is no output of vsdmot track, was compacted by another key,
            or another compaction of it has begun.
        StorageError: A file cannot be read or written.
        Stopped: A signal asked for the end. What was committed stays.
    """
    output = config.output.rstrip("/")
    _check_run(output)
    conditional = storage.creates_once(output)
    if not conditional:
        say(
            f"{output} has no conditional writes, so two compactions of it at once could lose each "
            "other's commits: start only one"
        )
    work = _Work(config, output, conditional)
    work.begin()
    listed = find(output, work.commit)
    found(len(listed.fresh))
    work.removal.add(listed.stale_files(output))
    work.removal.add(list(stale_sets(output, work.commit)))
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            videos = in_order(output, listed.fresh, config.partition, pool, work.skip)
            for group in groups(videos, work.commit.sets, config.file_mb * 1e6):
                stop.check()
                work.take(group, pool)
                advance(len(group.videos))
            work.write_commit()
    except StorageError as error:
        if is_missing(error):
            work.check_newest()  # another run may have merged and removed the file
        raise
    if work.removal.waits:
        say(f"waiting {config.keep_s:g} s for queries that have listed the files to be removed")
    work.removal.finish(stop)
    work.done.removed = work.removal.removed
    work.done.sets_now = len(work.commit.sets)
    return work.done


class _Work:
    """The state of one run: the last commit, and the sets that wait for the next."""

    def __init__(self, config: CompactConfig, output: str, conditional: bool) -> None:
        self._config, self._output, self._conditional = config, output, conditional
        self._run = secrets.token_hex(4)
        self._made: list[CompactedSet] = []
        self._groups: list[Group] = []
        self._count = 0
        self.removal = Removal(config.keep_s)
        self.done = Compacted()
        self.commit = Commit(0, self._run, config.partition, ())

    def begin(self) -> None:
        """Take the newest commit over."""
        before = newest_commit(self._output)
        if before is not None:
            if before.sets and before.partition != self._config.partition:
                raise CompactionRefused(
                    f"{self._output} is compacted with partition={before.partition}, so "
                    f"partition={self._config.partition} is refused; give "
                    f"partition={before.partition}"
                )
            self.commit = replace(before, run=self._run, partition=self._config.partition)
        self._write(self.commit)

    def skip(self, video_id: str, reason: str) -> None:
        """Leave a video as it is."""
        self.done.skipped[video_id] = reason

    def take(self, group: Group, pool: ThreadPoolExecutor) -> None:
        """Merge one group, and commit if enough waits."""
        while group.videos:
            name = f"{self.commit.number + 1:08d}-{self._run}-{self._count:04d}"
            path = partition_folder(group.partition, self._config.partition) + name
            target = CompactedSet(path, group.partition, "", "", 0, 0)
            try:
                merged = merge(self._output, group, target, pool)
                break
            except DamagedVideo as error:
                self.check_newest()  # another run may have merged and removed the video
                self.skip(error.video_id, str(error))
                rest = tuple(v for v in group.videos if v.video_id != error.video_id)
                group = replace(group, videos=rest)
        else:
            return
        self._count += 1
        videos = len(group.videos) + sum(each.videos for each in group.sets)
        self._made.append(
            replace(target, first=merged.first, last=merged.last, videos=videos, bytes=merged.bytes)
        )
        self._groups.append(group)
        self.done.videos += len(group.videos)
        self.done.sets += 1
        for table, count in merged.rows.items():
            self.done.rows[table] += count
        size = sum(each.bytes for each in self._made)
        if size >= self._config.file_mb * 1e6 or len(self._made) >= _SETS_A_COMMIT:
            self.write_commit()
        self.removal.due()

    def write_commit(self) -> None:
        """Make the sets that wait count, and have what they replace removed later."""
        if not self._made:
            return
        replaced = {each.path for group in self._groups for each in group.sets}
        kept = tuple(each for each in self.commit.sets if each.path not in replaced)
        self._write(replace(self.commit, sets=(*kept, *self._made)))
        self.removal.add(_files_of(self._output, self._groups))
        self._made, self._groups = [], []

    def _write(self, commit: Commit) -> None:
        commit = replace(commit, number=commit.number + 1)
        uri = commit_uri(self._output, commit.number)
        if not storage.create_if_absent(uri, commit.encode(), self._conditional):
            remove_all(each.uri(self._output, t) for each in self._made for t in MERGED)
            raise self._taken_over()
        if self.commit.number:
            self.removal.add([commit_uri(self._output, self.commit.number)])
        self.commit = commit
        self.check_newest()

    def check_newest(self) -> None:
        """Raise CompactionRefused unless the newest commit is this run's.

        Another run may have gone on from it. Or an earlier commit of the same number was removed,
        so that this one could be created. Either way the newest commit says what counts, and what
        this run made stays for the next compaction to remove.
        """
        if commit_numbers(self._output)[-1] != self.commit.number:
            raise self._taken_over()

    def _taken_over(self) -> CompactionRefused:
        return CompactionRefused(
            f"another vsdmot compact of {self._output} has begun, so this one ends; what it "
            "committed stays. Let the other one finish."
        )


def _files_of(output: str, merged: list[Group]) -> Iterator[str]:
    """Files that groups were made of; the row of a video comes last."""
    for group in merged:
        for table in MERGED:
            yield from (each.uri(output, table) for each in group.sets)
            yield from (
                table_uri(output, table, video.video_id)
                for video in group.videos
                if table != "seams" or video.has_seams
            )


def _check_run(output: str) -> None:
    uri = f"{output}/run.json"
    if not storage.exists(uri):
        raise CompactionRefused(
            f"{output} is no output of vsdmot track: run.json is missing; check the path"
        )
    try:
        record = json.loads(storage.read_bytes(uri))
        job, version = record["job"], record["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise CompactionRefused(
            f"{uri} is not a record of this project ({type(error).__name__}: {error}); check the "
            "path"
        ) from error
    if job != "track" or version != SCHEMA_VERSION:
        raise CompactionRefused(
            f"{output} was written by vsdmot {job} with schema version {version}; only outputs of "
            f"vsdmot track with version {SCHEMA_VERSION} can be compacted"
        )
