"""Reads headers by tasks of a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import ray
from ray.exceptions import RayError

from pipeline.archive.archive import HEADER_DEADLINE_S
from pipeline.archive.survey import Surveyed, survey
from pipeline.runtime.stop import ClusterError
from pipeline.storage.errors import describe_error
from pipeline.storage.files import ArchiveFile
from pipeline.video.headers import HeaderReader
from pipeline.video.limits import Limits

_FILES = 32  # of a task


def read_on_ray(files: Sequence[ArchiveFile], threads: int, limits: Limits) -> list[Surveyed]:
    """Read headers on the connected cluster; a value for each file in their order.

    Args:
        files: The files.
        threads: Headers that a task reads at once.
        limits: Bounds on a video.

    Raises:
        ClusterError: Ray failed and did not recover.
    """
    # No CPU is asked for, because the workers that track have all of them. A header is a wait for
    # storage. Tasks are spread, so that each machine reads some.
    read: Any = ray.remote(num_cpus=0, scheduling_strategy="SPREAD")(_read_headers)
    groups = [files[start : start + _FILES] for start in range(0, len(files), _FILES)]
    try:
        found: list[list[Surveyed]] = ray.get([read.remote(g, threads, limits) for g in groups])
    except RayError as error:
        raise ClusterError(
            f"the Ray cluster failed: {describe_error(error)}; results so far stay; run again to "
            "go on from here"
        ) from error
    return [item for group in found for item in group]


def _read_headers(files: Sequence[ArchiveFile], threads: int, limits: Limits) -> list[Surveyed]:
    return list(survey(files, threads, _reader(threads, limits).probe))


@cache
def _reader(threads: int, limits: Limits) -> HeaderReader:
    """The reader of this process, kept for its next task; it ends with the process."""
    return HeaderReader(threads, limits, HEADER_DEADLINE_S)
