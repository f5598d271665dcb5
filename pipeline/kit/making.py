"""Makes a kit: the settings of its stages, the files they need, and the code."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import torch

from model.communicator import Communicator
from model.learn.training_state import Position, StateError, read_position
from model.net.config import Size
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
    """Write the folder of a kit.

    Raises:
        KitError: the folder holds other files, parts are too small, or the state cannot be read.
        ReturnError: weights and training state would be too large to copy back.
        ValueError: shards or weights cannot be used.
    """
    shards = Shards(job.shards)
    require_train(shards)
    if any(stage.training.score for stage in job.chosen.values()):
        require_val(shards)
    configs = _configs(job)
    for name in job.stages:
        local = replace(configs[name], start=job.start, shards=job.shards)
        classes = tuple(shards.classes)
        check_size(build_trainer(local, classes, torch.device("cpu"), Communicator()))
    files: dict[str, Path | bytes] = {START: Path(job.start)}
    if job.state:
        state = Path(job.state).read_bytes() if Path(job.state).is_file() else b""
        try:
            position = read_position(state)
        except StateError as error:
            raise KitError(
                f"{job.state}: {error}; give NAME.state.safetensors of vsdmot kit-back, or "
                "state.safetensors of a run"
            ) from error
        files = {START: _weights_at_start(job.start, position), STATE: compact(state)}
    for path in sorted(Path(job.shards).glob("shard-*.zip")):
        files[f"{SHARDS}/{path.name}"] = path
    stages = [Stage(name, stage.share) for name, stage in job.chosen.items()]
    resolved = {name: asdict(config) for name, config in configs.items()}
    return write_kit(job.output, stages, resolved, files, job.device, int(job.part_mb * 1e6))


def _configs(job: KitJob) -> dict[str, TrainJob]:
    """Settings of each stage, with paths on the GPU machine; it starts from the stage before."""
    # `TrainJob` refuses an unknown size.
    size = cast(Size, read_metadata(job.start).model.size)
    start, configs = START, {}
    for name, stage in job.chosen.items():
        configs[name] = TrainJob(
            shards=SHARDS,
            output=name,
            size=size,
            start=start,
            learn=stage.learn,
            clips=stage.clips,
            singles=stage.singles,
            training=stage.training,
            mlflow=MlflowConfig(enabled=False),
        )
        start = f"{name}/{student_file(size)}"
    return configs


def _weights_at_start(start: str, position: Position) -> bytes:
    """The weights file with the metadata of the weights that the resumed training started from.

    The resumed training may have made the weights in `start` itself. Their metadata then includes
    its frames, which would be counted twice.
    """
    tracker, metadata = Tracker.load(start)
    history = metadata.training
    if (history.get("steps"), "started_from" in history) == (position.step, True):
        before = history["started_from"]
        history = before if isinstance(before, Mapping) else {"started_from": before}
    return checkpoint_bytes(tracker.state_dict(), replace(metadata, training=history))
