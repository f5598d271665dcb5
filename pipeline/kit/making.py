"""Make a kit: the trainings of its stages, the files they start from, and the code."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import torch

from model.communicator import Communicator
from model.learn.training_state import Position, StateError, read_position
from model.net.config import Size
from model.teach.config import TeacherConfig
from model.track.checkpoint import checkpoint_bytes, read_metadata
from model.track.tracker import Tracker
from pipeline.datasets.shards import Shards, require_train, require_val
from pipeline.kit.folder import SHARDS, START, STATE, Kit, KitError, Stage, write_kit
from pipeline.kit.kit_job import KitJob
from pipeline.kit.returning import check_size, compact
from pipeline.runtime.settings import MlflowConfig
from pipeline.training.student import student_file
from pipeline.training.train_job import TrainJob
from pipeline.training.train_parts import build_trainer


def make_kit(job: KitJob) -> Kit:
    """Write the folder.

    Raises:
        KitError: the folder holds something else, or parts are too small.
        ReturnError: the weights will be too large to come back.
        ValueError: shards, weights or state cannot be used.
    """
    shards = Shards(job.shards)
    require_train(shards)
    if any(stage.training.score for stage in job.chosen.values()):
        require_val(shards)
    configs = _configs(job)
    for name in job.stages:
        here = replace(configs[name], start=job.start, shards=job.shards)
        classes = tuple(shards.classes)
        check_size(build_trainer(here, classes, torch.device("cpu"), Communicator()))
    files: dict[str, Path | bytes] = {START: Path(job.start)}
    if job.state:
        state = Path(job.state).read_bytes() if Path(job.state).is_file() else b""
        try:
            position = read_position(state)
        except StateError as error:
            raise KitError(f"{job.state}: {error}; give the state of vsdmot kit-back") from error
        files = {START: _started_from(job.start, position), STATE: compact(state)}
    for path in sorted(Path(job.shards).glob("shard-*.zip")):
        files[f"{SHARDS}/{path.name}"] = path
    stages = [Stage(name, stage.share) for name, stage in job.chosen.items()]
    resolved = {name: asdict(config) for name, config in configs.items()}
    return write_kit(job.output, stages, resolved, files, job.device, int(job.part_mb * 1e6))


def _configs(job: KitJob) -> dict[str, TrainJob]:
    """The trainings, each from the weights of the one before; paths as they are there."""
    # A size that is none is refused by `TrainJob`.
    size = cast(Size, read_metadata(job.start).model.size)
    start, configs = START, {}
    for name, stage in job.chosen.items():
        configs[name] = TrainJob(
            shards=SHARDS,
            output=name,
            size=size,
            start=start,
            learn=stage.learn,
            teacher=TeacherConfig(model=""),
            clips=stage.clips,
            training=stage.training,
            mlflow=MlflowConfig(enabled=False),
        )
        start = f"{name}/{student_file(size)}"
    return configs


def _started_from(start: str, position: Position) -> bytes:
    """The weights, with the history that they had where the training of a state began.

    Of weights that this training made itself, the frames would else be counted twice.
    """
    tracker, metadata = Tracker.load(start)
    history = metadata.training
    if (history.get("steps"), "started_from" in history) == (position.step, True):
        before = history["started_from"]
        history = before if isinstance(before, Mapping) else {"started_from": before}
    return checkpoint_bytes(tracker.state_dict(), replace(metadata, training=history))
