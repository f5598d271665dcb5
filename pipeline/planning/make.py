"""Makes a plan: goes through the archive, makes a trial, estimates. Nothing is written."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rich.console import Console

from pipeline.planning.asked import Asked, Place, go_through, local_place
from pipeline.planning.calibration import Calibration, calibrate
from pipeline.planning.config import PlanConfig
from pipeline.planning.estimate import Estimate, estimate
from pipeline.planning.stretches import stretches
from pipeline.runtime.machine import usable_cores
from pipeline.runtime.stop import StopRequest
from pipeline.video.only import tracked_picture


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan.

    Attributes:
        asked: What a run would have to do.
        calibration: What was measured; None without a trial.
        estimate: What a run would take.
    """

    asked: Asked
    calibration: Calibration | None
    estimate: Estimate


def make_plan(config: PlanConfig, stop: StopRequest, console: Console) -> Plan:
    """Make the plan of a run.

    Args:
        config: Its settings.
        stop: Checked several times a second.
        console: Shows what is under way.

    Raises:
        StorageError, RunRefused, CheckpointError, RuntimeUnavailable, MemoryRefused: As of
            `go_through`.
        ClusterError: The cluster of the settings cannot be reached.
        CalibrationError: No process could be used for the trial.
        Stopped: A signal asked for the end.
    """
    place = _place(config)
    asked = go_through(config, place, stop, console)
    calibration = None
    if asked.sample and config.calibration_s:
        with console.status(f"tracking stretches of the archive for {config.calibration_s:g} s"):
            calibration = _trial(config, asked, stop)
    return Plan(asked, calibration, estimate(config, asked, calibration))


def _trial(config: PlanConfig, asked: Asked, stop: StopRequest) -> Calibration:
    here = local_place(config)
    own = here.room if here.device != "cpu" else usable_cores()
    settings = replace(
        asked.settings,
        device=here.device,
        first_picture=tracked_picture(config.only, asked.sample[0]),
    )
    workers = max(chunk.workers for chunk in asked.chunks)
    return calibrate(
        stretches(asked.sample, config),
        settings,
        config.cluster,
        min(workers, own),
        config.calibration_s,
        stop,
    )


def _place(config: PlanConfig) -> Place:
    """Where a run would work; a cluster of an address is asked for its size."""
    if not config.cluster.address or config.cluster.workers == 0:
        return local_place(config)
    # Imported here, because Ray takes seconds to import.
    from pipeline.tracking.on_ray import cluster_actors, connected

    with connected(config.cluster.address, None):
        gpus, room = cluster_actors(None, config.cluster.gpu_share)
    return Place("cuda" if gpus else "cpu", room, here=False)
