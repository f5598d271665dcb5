"""Trains the stages of a kit one after the other, within the given time.

Weights and state are written to the folder of returned files at the end of each stage, before its
score. So they are returned even if the command fails later. Those of the next stage replace them.
"""

import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from model.allocator import keep_large_blocks
from model.learn.training import Progress, Trainer
from model.learn.training_state import read_position
from model.settings import build
from model.track.tracker import Tracker
from pipeline.datasets.shards import Shards, require_val
from pipeline.kit.folder import SHARDS, START, STATE, Kit, KitError, join_kit, read_kit, read_stage
from pipeline.kit.returning import LOG, SCORE, compact, write_back
from pipeline.kit.step_limit import StepTimes, limit, measure_step
from pipeline.kit.time_shares import fitting_loaders, stage_seconds
from pipeline.training.batches import Stream
from pipeline.training.config import WorkerConfig
from pipeline.training.fit import fit
from pipeline.training.log import LOG as RUN_LOG
from pipeline.training.log import TrainingLog
from pipeline.training.progress import line_printer
from pipeline.training.run_folder import STATE as RUN_STATE
from pipeline.training.run_folder import RunFolder
from pipeline.training.still_score import score_stills
from pipeline.training.train_job import TrainJob
from pipeline.training.train_parts import (
    claim,
    open_clips,
    score,
    training_task,
    weights_path,
    write_weights,
)

_WRITING_S = 10.0  # of a stage, to build the trainer, write files and measure step times
_STEP_TIMES_S = 4.0  # to measure steps without a loader
_SAMPLE = 32  # stills that are timed to estimate the time of a score
_SPARE = 1.3  # factor on this estimate
_LOG_LINES = 1000  # lines of the log that are returned of each stage
_PATCH_BYTES = 8 * 64 * 64  # luma patches of one frame


@dataclass(slots=True)
class _Speed:
    """Speed of steps, without the first ones, which are slow."""

    steps: list[Progress] = field(default_factory=list)
    unreadable: set[str] = field(default_factory=set)

    def add(self, progress: Progress) -> None:
        self.steps.append(replace(progress, terms={}))
        self.unreadable.update(progress.problems)

    def figures(self) -> dict[str, float]:
        """Frames per second, share of the time waiting for data, and median seconds of a step."""
        steady = self.steps[10:] if len(self.steps) > 20 else self.steps
        seconds = sum(p.seconds for p in steady)
        return {
            "frames_per_second": sum(p.frames for p in steady) / seconds,
            "waiting": sum(p.data_seconds for p in steady) / seconds,
            "step_seconds": median(p.seconds for p in steady),
        }


def run_stages(folder: Path, out: Path, deadline: float) -> None:
    """Train all stages of a kit.

    Args:
        folder: folder of the kit.
        out: folder for the returned files.
        deadline: time when the command must end, by `time.monotonic`.

    Raises:
        KitError: parts are missing, there is no GPU, or the time is too short.
        TrainingError: see `fit`; weights and state of earlier stages are in `out`.
    """
    keep_large_blocks()
    kit = read_kit(folder)
    device = _device(kit)
    work = _new_folder(folder)
    join_kit(folder, kit, work)
    jobs = [_placed(read_stage(folder, stage), work, kit) for stage in kit.stages]
    if (work / STATE).is_file():
        Path(jobs[0].output).mkdir()
        (work / STATE).rename(Path(jobs[0].output, RUN_STATE))
    scoring = _scoring_seconds(work, device) if any(j.training.score for j in jobs) else 0.0
    print(f"on {_name(device)}; {scoring:.0f} s are reserved for each score", flush=True)
    returned = _ReturnFolder(out)
    for number, (stage, job) in enumerate(zip(kit.stages, jobs, strict=True)):
        after = jobs[number:]
        kept = _WRITING_S * len(after) + scoring * sum(j.training.score for j in after)
        _train(stage.name, job, returned, deadline, kept, [s.share for s in kit.stages[number:]])


class _ReturnFolder:
    """The folder of the files to return.

    Args:
        folder: its path.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = RunFolder(str(folder))
        self._log: list[str] = []
        self._reports: list[dict[str, Any]] = []

    def weights(self, job: TrainJob, trainer: Trainer, figures: dict[str, float]) -> Path:
        """Write the weights of a stage; return the path of a file with the rounded weights."""
        write_weights(job, trainer, figures)
        rounded = Path(job.output, "rounded.safetensors")
        rounded.write_bytes(compact(Path(weights_path(job)).read_bytes()))
        write_back(self._folder.uri, rounded.read_bytes())
        return rounded

    def state(self, trainer: Trainer) -> None:
        """Write the training state, which resuming needs beside the weights."""
        write_back(self._folder.uri, None, trainer.save())

    def log(self, stage: str, path: Path) -> None:
        """Write lines of the log of a stage, evenly spaced."""
        lines = path.read_text().splitlines()
        for line in lines[:: 1 + len(lines) // _LOG_LINES]:
            self._log.append(json.dumps({"stage": stage, **json.loads(line)}) + "\n")
        self._folder.write(LOG, "".join(self._log).encode())

    def report(self, stage: str, figures: dict[str, Any]) -> None:
        """Write figures of a stage; earlier figures of the same stage are replaced."""
        self._reports = [r for r in self._reports if r["stage"] != stage]
        self._reports.append({"stage": stage, **figures})
        self._folder.write(SCORE, json.dumps({"stages": self._reports}, indent=2).encode())


def _train(
    name: str,
    job: TrainJob,
    returned: _ReturnFolder,
    deadline: float,
    kept: float,
    shares: list[float],
) -> None:
    """Train one stage.

    Args:
        name: name of the stage.
        job: with paths of this machine.
        returned: folder of the files to return.
        deadline: see `run_stages`.
        kept, shares: see `stage_seconds`.
    """
    job = _with_loaders(job)
    # It tries all kernels again for each canvas size.
    torch.backends.cudnn.benchmark = all(len(x.canvases()) == 1 for x, _ in job.contents)
    stream = open_clips(job)
    seconds = stage_seconds(deadline - time.monotonic(), kept, shares)
    print(f"{name}: {seconds:.0f} s, {job.worker.loaders} loaders", flush=True)
    job, speed, print_line = _with_time(job, seconds), _Speed(), line_printer()

    def on_progress(progress: Progress) -> None:
        log.add_step(progress)
        speed.add(progress)
        print_line(progress)

    def finish(trainer: Trainer, _: dict[str, float]) -> None:
        figures: dict[str, Any] = {
            "device": _name(trainer.device),
            **asdict(trainer.position),
            **speed.figures(),
            "unreadable": sorted(speed.unreadable),
        }
        rounded = returned.weights(job, trainer, {})
        returned.state(trainer)
        returned.log(name, Path(job.output, RUN_LOG))
        returned.report(name, figures)
        if job.training.score:
            # The score is that of the returned weights, which are rounded.
            figures["score"] = score(job, Tracker.load(rounded, trainer.device)[0])
            returned.weights(job, trainer, figures["score"])
        times = _step_times(
            job, stream, trainer, figures["step_seconds"], deadline - time.monotonic()
        )
        figures["limit"] = limit(figures["waiting"], times)
        figures["without_loader"] = asdict(times) if times else None
        returned.report(name, figures)
        for key in ("frames", "frames_per_second", "waiting", "score", "limit"):
            if key in figures:
                print(f"{name}: {key} {figures[key]}", flush=True)

    task = replace(
        training_task(job, Shards(job.shards)), stream=lambda: stream, finish=finish, score=None
    )
    claim(RunFolder(job.output), job)
    with TrainingLog(RunFolder(job.output)) as log:
        fit(task, job.cluster, job.worker, on_progress)


def _step_times(
    job: TrainJob, stream: Stream, trainer: Trainer, step_seconds: float, left: float
) -> StepTimes | None:
    """Measure steps without a loader; None if the time that is left is too short."""
    # In a stage with both, this is a step on single frames, of which there are most.
    seconds, batch = min(_STEP_TIMES_S, left / 2), job.step_sizes[0]
    if batch < 2 or job.training.compile or seconds < 6 * step_seconds:
        return None
    items: Any = stream.items
    try:
        return measure_step(trainer, [items[i] for i in range(batch)], stream.collate, seconds)
    except RuntimeError as error:  # this figure must not stop the next stage
        print(f"warning: steps without a loader were not measured: {error}", flush=True)
        return None


def _device(kit: Kit) -> torch.device:
    """The device of the kit. It is initialised here, so that this does not count as training."""
    if kit.device == "cuda" and not torch.cuda.is_available():
        raise KitError(
            "torch finds no GPU on this machine; to test the kit on a CPU, make it with device=cpu"
        )
    return torch.zeros(1, device=kit.device).device


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"


def _new_folder(folder: Path) -> Path:
    """Path of a new folder for one run of the command, beside the parts."""
    number = 0
    while (folder / f"run-{number}").exists():
        number += 1
    return folder / f"run-{number}"


def _placed(config: dict[str, Any], work: Path, kit: Kit) -> TrainJob:
    """Settings of a stage with paths of this machine."""
    job = build(TrainJob, config)
    return replace(
        job,
        shards=str(work / job.shards),
        start=str(work / job.start),
        output=str(work / job.output),
        worker=WorkerConfig(device=kit.device),
    )


def _with_loaders(job: TrainJob) -> TrainJob:
    """The job with a number of loaders for this machine."""
    size = max(
        batch * clips.length * (3 * height * width + _PATCH_BYTES)
        for clips, batch in job.contents
        for height, width in clips.canvases()
    )
    loaders = fitting_loaders(
        len(os.sched_getaffinity(0)), size, shutil.disk_usage("/dev/shm").free
    )
    return replace(job, worker=replace(job.worker, loaders=loaders))


def _with_time(job: TrainJob, seconds: float) -> TrainJob:
    """The job with a budget of `seconds`, added to the time used by a state in its output."""
    data = RunFolder(job.output).read(RUN_STATE)
    used = read_position(data).seconds if data else 0.0
    minutes = (used + seconds) / 60
    return replace(job, training=replace(job.training, steps=0, minutes=minutes))


def _scoring_seconds(work: Path, device: torch.device) -> float:
    """Estimate the time of a score in seconds. A few stills are scored twice; the second counts."""
    tracker, _ = Tracker.load(work / START, device)
    shards = Shards(work / SHARDS)
    seconds = pictures = 0.0
    for _ in range(2):
        start = time.monotonic()
        pictures = score_stills(tracker, shards, device, limit=_SAMPLE)["pictures"]
        seconds = time.monotonic() - start
    return _SPARE * seconds / pictures * len(require_val(shards))
