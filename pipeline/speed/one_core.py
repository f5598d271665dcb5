"""Processes for measures: one that keeps to one core, and one for each Ray cluster.

Threads of one side of a comparison would use idle cores, and its speed would depend on how many
there are. Where the system cannot pin a process, processor time still tells what a core would do.
Ray Data does not survive a second cluster in the same process, so each cluster has its own.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any


class MeasureError(RuntimeError):
    """A measure could not be taken; the message says why."""


@contextmanager
def one_core() -> Iterator[Callable[..., Any]]:
    """Start a process on one core; yields a function that calls a function there.

    The process lives as long as the body, so models stay open from call to call.

    Raises:
        MeasureError: The process ended during a call.
    """
    with _process(_keep_to_one_core) as call:
        yield call


@contextmanager
def all_cores() -> Iterator[Callable[..., Any]]:
    """Start a process that may use all cores, otherwise as `one_core`."""
    with _process(None) as call:
        yield call


@contextmanager
def _process(start: Callable[[], None] | None) -> Iterator[Callable[..., Any]]:
    # Spawned, because a fork would have this process's threads of libraries, but not their state.
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawned, initializer=start) as process:

        def call(function: Callable[..., Any], *arguments: Any) -> Any:
            try:
                return process.submit(function, *arguments).result()
            except BrokenProcessPool as error:
                raise MeasureError(
                    f"the process of {function.__name__} ended; more memory may be needed than "
                    "is free"
                ) from error

        yield call


def _keep_to_one_core() -> None:
    import torch

    from model.allocator import keep_large_blocks

    if hasattr(os, "sched_setaffinity"):
        # The last core, because interrupts and most other work are on the first ones.
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    keep_large_blocks()
