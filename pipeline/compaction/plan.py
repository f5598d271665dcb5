"""Which videos are merged into which set: pure functions, without any file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from urllib.parse import quote

from pipeline.compaction.config import PartitionKey
from pipeline.storage.compacted import CompactedSet

# Years 1900 to 2099; a time may follow without a separator, as in 20260331142500.
_DAY = re.compile(
    r"(?<!\d)((?:19|20)\d\d)([-_./]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?!\d(?!\d{5}(?!\d)))"
)
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"  # Hive's name for null, which all engines read as such
_SMALL = 0.5  # of the greatest size: smaller sets are merged again


@dataclass(frozen=True, slots=True)
class FreshVideo:
    """A finished video with files of its own.

    Attributes:
        video_id: Its id.
        partition: Value of the partition key; "" without one.
        bytes: Size of the larger of its files of tracks and frames.
        has_seams: Whether it has a file of seams.
    """

    video_id: str
    partition: str
    bytes: int
    has_seams: bool


@dataclass(frozen=True, slots=True)
class Group:
    """What becomes one set.

    Attributes:
        partition: Value of the partition key.
        videos: Videos with files of their own, by id.
        sets: Small sets of earlier runs.
    """

    partition: str
    videos: tuple[FreshVideo, ...]
    sets: tuple[CompactedSet, ...]


def groups(
    videos: Iterable[FreshVideo], sets: Sequence[CompactedSet], most_bytes: float
) -> Iterator[Group]:
    """Divide the videos into groups that become sets of at most `most_bytes`.

    The last group of a partition takes in its small sets, so that there are never many of them.

    Args:
        videos: Sorted by partition, then by id.
        sets: The sets that count.
        most_bytes: Greatest size of a file. A video that is larger is a group of its own.
    """
    for partition, members in groupby(videos, lambda video: video.partition):
        small = tuple(s for s in sets if s.partition == partition and s.bytes < _SMALL * most_bytes)
        chosen: list[FreshVideo] = []
        size = 0
        for video in members:
            if chosen and size + video.bytes > most_bytes:
                yield Group(partition, tuple(chosen), ())
                chosen, size = [], 0
            chosen.append(video)
            size += video.bytes
        yield Group(partition, tuple(chosen), small)


def partition_value(relative_path: str, key: PartitionKey) -> str:
    """The value of the partition key for a video; "" if its path has none.

    Args:
        relative_path: Path of the video below the root of the archive.
        key: What to divide by.
    """
    if key == "folder":
        folder, slash, _ = relative_path.partition("/")
        return folder if slash else ""
    if key == "day":
        for match in _DAY.finditer(relative_path):
            try:
                return date(int(match[1]), int(match[3]), int(match[4])).isoformat()
            except ValueError:  # such as 30 February
                continue
    return ""


def partition_folder(value: str, key: PartitionKey) -> str:
    """Folder of a partition in Hive's form, ``key=value/``; "" if nothing is partitioned."""
    if key == "none":
        return ""
    return f"{key}={quote(value, safe='') or _NO_VALUE}/"
