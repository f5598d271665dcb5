"""Settings of `vsdmot compact`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from model.settings import NotEmpty, Range, check

PartitionKey = Literal["none", "folder", "day"]


@dataclass(frozen=True, slots=True)
class CompactConfig:
    """Settings of `vsdmot compact`.

    Attributes:
        output: folder or URL of tables, the output of vsdmot track.
        partition: what the merged files are divided by. folder: the first folder of the video's
            path in the archive, often a camera. day: the date in that path, such as 2026-03-31 or
            20260331. none: nothing. It cannot change once a folder is compacted.
        file_mb: greatest size of a merged file in megabytes (10^6 bytes); a longer video has a file
            of its own.
        keep_s: seconds that merged files stay after their commit, for queries that have listed
            them before.
    """

    job: ClassVar[str] = "compact"
    about: ClassVar[str] = "Merge the tables of finished videos into few large files."

    output: Annotated[str, NotEmpty()]
    partition: PartitionKey = "none"
    file_mb: Annotated[float, Range(0, above=True)] = 256.0
    keep_s: Annotated[float, Range(0)] = 60.0

    def __post_init__(self) -> None:
        check(self)
