"""The processors that this process may use, and the environment of its children."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Cores that the affinity of this process and the quota of its container allow, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min(cores, _quota_cores(cores)))


@contextmanager
def variables_set(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables of this process, which its children inherit, for the body."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _quota_cores(otherwise: int) -> int:
    """Whole cores of the quota of control groups, version 2; `otherwise` where there is none."""
    try:
        quota, period = _QUOTA.read_text().split()
        # A quota of half a core is one core at half speed, not none.
        return math.ceil(int(quota) / int(period))
    except (OSError, ValueError):  # no control groups, or no limit, which reads "max"
        return otherwise
