"""A trial: stretches of the archive are tracked here, by as many processes as a run would have.

A process is made like a worker of a run: one thread for the model, one that decodes, the same
runtime. Rows go through the same tables to temporary files, which have no names. Graphs that have
to be converted lie in a temporary folder.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from multiprocessing.connection import wait
from typing import Any

from pipeline.planning.stretches import Stretch
from pipeline.planning.trial import Reading, serve
from pipeline.runtime.machine import variables_set
from pipeline.runtime.settings import ClusterConfig
from pipeline.runtime.stop import StopRequest
from pipeline.tracking.sharing import ACTOR_ENVIRONMENT
from pipeline.tracking.track_video import TrackSettings

_MOST = 64  # stretches of a process, of which those are tracked that there is time for
_START_S = 600.0  # for processes to start, and to convert the model
_LATE_S = 180.0  # for a process to end after its time
_POLL_S = 0.2


class CalibrationError(RuntimeError):
    """No trial could be made; the message has the reason and the remedy."""


@dataclass(slots=True)
class Calibration:
    """What a trial found.

    Attributes:
        processes: Workers that tracked at the same time.
        readings: By stretch.
        failed: Reason by video, for stretches that gave no frame.
        start_s: Seconds until the last worker was ready.
        runtime: What the student ran in.
        streams: Videos that a worker tracked at once.
    """

    processes: int
    readings: list[Reading] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    start_s: float = 0.0
    runtime: str = ""
    streams: int = 1


def calibrate(
    stretches: Iterator[Stretch],
    settings: TrackSettings,
    cluster: ClusterConfig,
    processes: int,
    seconds: float,
    stop: StopRequest,
) -> Calibration:
    """Track stretches in processes of their own.

    Args:
        stretches: Places in videos, the most telling first.
        settings: Of the workers, with their device.
        cluster: How workers share a GPU.
        processes: Workers that track at the same time, at least 1.
        seconds: Time for tracking, without the start of the processes.
        stop: Checked several times a second.

    Raises:
        CalibrationError: No process could be used.
        Stopped: A signal asked for the end.
    """
    found = Calibration(processes)
    places = list(islice(stretches, _MOST * processes))
    # Spawned, because a fork of a driver with threads copies locks that are held.
    context = multiprocessing.get_context("spawn")
    running: dict[Any, _Child] = {}
    folder = tempfile.TemporaryDirectory(prefix="vsdmot-plan-")
    settings = replace(settings, graph_folder=folder.name, decode_threads=_decode_threads(settings))
    begun = time.monotonic()
    try:
        variables = {"OMP_NUM_THREADS": "1"} | ({} if settings.in_process else ACTOR_ENVIRONMENT)
        with variables_set(variables):
            for number in range(processes):
                child = _Child(context, settings, cluster, places[number::processes], seconds)
                running[child.connection] = child
        _receive(running, found, begun + _START_S, stop)  # until all are ready
        found.start_s = time.monotonic() - begun
        for child in running.values():
            with suppress(OSError):  # it has died, which is seen below
                child.connection.send("begin")
        _receive(running, found, time.monotonic() + seconds + _LATE_S, stop)
    finally:
        for child in running.values():
            child.end()
        folder.cleanup()
    return found


def _decode_threads(settings: TrackSettings) -> int:
    """As a run chooses: on Ray the threads of an actor on a CPU share its core."""
    return 0 if settings.in_process or settings.device != "cpu" else 1


class _Child:
    """A process of a trial."""

    def __init__(
        self,
        context: Any,
        settings: TrackSettings,
        cluster: ClusterConfig,
        places: Sequence[Stretch],
        seconds: float,
    ) -> None:
        self.connection, theirs = context.Pipe()
        self.path = ""  # of the video under way, if there is one at a time
        self._process = context.Process(
            target=serve, args=(theirs, settings, cluster, places, seconds), daemon=True
        )
        self._process.start()
        theirs.close()

    def end(self) -> str:
        """Kill the process, which is safe because it writes nothing; returns how it ended."""
        self._process.join(_POLL_S)
        self._process.kill()
        self._process.join()
        return f"exit code {self._process.exitcode}"


def _receive(
    running: dict[Any, _Child], found: Calibration, deadline: float, stop: StopRequest
) -> None:
    """Take what the processes say until each has said "ready" or "end", or is lost."""
    open_ones = set(running)
    while open_ones:
        stop.check()
        if time.monotonic() > deadline:
            raise CalibrationError(
                "the trial took much longer than plan.seconds; check the storage, give "
                "plan.seconds=0 to plan without a trial, or rate=… to give frames a second"
            )
        for connection in wait(list(open_ones), _POLL_S):
            child = running[connection]
            try:
                kind, *values = child.connection.recv()
            except (EOFError, OSError):
                open_ones.discard(connection)
                del running[connection]
                _lost(child, found)
                continue
            if kind == "reading":
                found.readings.append(values[0])
            elif kind == "failed":
                found.failed[values[0]] = values[1]
            elif kind == "begins":
                child.path = values[0]
            elif kind == "broken":
                raise CalibrationError(values[0])
            elif kind == "ready":
                found.runtime, found.streams = values
                open_ones.discard(connection)
            else:
                open_ones.discard(connection)


def _lost(child: _Child, found: Calibration) -> None:
    how = child.end()
    if not child.path:
        raise CalibrationError(
            f"a process of the trial ended at its start ({how}); there may be too little memory: "
            "lower cluster.workers, or give plan.seconds=0 to plan without a trial"
        )
    found.failed[child.path] = f"tracking it ended the process ({how})"
