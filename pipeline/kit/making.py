"""What goes into a kit: its settings, and the trainings that they make."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from jobs.student import nested_settings, student_file
from jobs.train_job import TrainJob, build_trainer
from jobs.training_run import MlflowSettings
from model.communicator import Communicator
from model.learn.training_config import STEPS, TrainingConfig
from model.learn.training_state import Position, StateError, read_position
from model.teach.teacher import TeacherSettings
from model.track.checkpoint import checkpoint_bytes, read_metadata
from model.track.tracker import Tracker
from pipeline.clips.config import ClipConfig
from pipeline.datasets.shards import Shards, require_train, require_val
from pipeline.kit.folder import SHARDS, START, STATE, Kit, KitError, Stage, write_kit
from pipeline.kit.returning import check_size, compact


@dataclass(frozen=True, slots=True)
class StageSettings:
    """Settings of one stage.

    Attributes:
        share: of the minutes there are for training, beside the shares of the other stages.
        learn: parts of the weights to train alone, as in jobs.train; empty trains everything.
        clips: how clips are drawn.
        training: how the student is trained; its time comes from the command there.
    """

    share: float = 0.5
    learn: tuple[str, ...] = ()
    clips: ClipConfig = field(default_factory=ClipConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass(frozen=True, slots=True)
class KitJob:
    """Settings of `jobs.kit`.

    Attributes:
        output: folder for the kit, below the folder that is carried to the machine.
        shards: folder of shards that jobs.pack made.
        start: weights to start from.
        state: training state that the first stage goes on from, of jobs.kit_back or of a run's
            folder; empty starts anew.
        stages: which are trained, in this order: detection, tracking.
        part_mb: size of a part at most, in 10^6 bytes; a call carries it beside the repository.
        device: cuda, or cpu for a rehearsal.
        detection: single frames.
        tracking: clips.
    """

    output: str = "runs/kit"
    shards: str = "runs/shards"
    start: str = "weights/vsdmot-nano.safetensors"
    state: str = ""
    stages: tuple[str, ...] = ("detection", "tracking")
    part_mb: float = 40.0
    device: str = "cuda"
    detection: StageSettings = field(default_factory=StageSettings)
    tracking: StageSettings = field(default_factory=StageSettings)

    def __post_init__(self) -> None:
        if not self.stages or len(set(self.stages)) < len(self.stages):
            raise ValueError("stages must name one or more, each once: [detection, tracking]")
        if unknown := set(self.stages) - {"detection", "tracking"}:
            raise ValueError(f"stages: unknown {sorted(unknown)}; known are detection, tracking")
        if self.device not in ("cuda", "cpu"):
            raise ValueError(f"device must be cuda or cpu, got {self.device!r}")
        for name, stage in self.chosen.items():
            _check_stage(name, stage)

    @property
    def chosen(self) -> dict[str, StageSettings]:
        """The stages that are trained, in order."""
        return {name: getattr(self, name) for name in self.stages}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "KitJob":
        """Build from `asdict`'s values.

        Raises:
            ValueError: a setting has a bad value.
        """
        made = dict(values)
        for name in ("detection", "tracking"):
            nested = nested_settings(
                values[name], {"clips": ClipConfig, "training": TrainingConfig}
            )
            made[name] = StageSettings(**{**nested, "learn": tuple(nested["learn"])})
        return cls(**{**made, "stages": tuple(values["stages"])})


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
            raise KitError(f"{job.state}: {error}; give the state of jobs.kit_back") from error
        files = {START: _started_from(job.start, position), STATE: compact(state)}
    for path in sorted(Path(job.shards).glob("shard-*.zip")):
        files[f"{SHARDS}/{path.name}"] = path
    stages = [Stage(name, stage.share) for name, stage in job.chosen.items()]
    resolved = {name: asdict(config) for name, config in configs.items()}
    return write_kit(job.output, stages, resolved, files, job.device, int(job.part_mb * 1e6))


def _configs(job: KitJob) -> dict[str, TrainJob]:
    """The trainings, each from the weights of the one before; paths as they are there."""
    size, start, configs = read_metadata(job.start).model.size, START, {}
    for name, stage in job.chosen.items():
        configs[name] = TrainJob(
            shards=SHARDS,
            output=name,
            size=size,
            start=start,
            learn=stage.learn,
            teacher=TeacherSettings(model=""),
            clips=stage.clips,
            training=stage.training,
            mlflow=MlflowSettings(enabled=False),
        )
        start = f"{name}/{student_file(size)}"
    return configs


def _check_stage(name: str, stage: StageSettings) -> None:
    if stage.share <= 0:
        raise ValueError(f"{name}.share must be above 0, got {stage.share}")
    if stage.training.minutes or stage.training.steps != STEPS:
        raise ValueError(
            f"{name}.training: minutes and steps come from run.py --minutes; leave them out"
        )
    if "codec" in stage.clips.kinds:
        raise ValueError(f"{name}.clips.kinds: codec needs PyAV, which is not there; leave it out")
    if stage.training.compile and len(stage.clips.canvases()) > 1:
        raise ValueError(
            f"{name}.training.compile: each of {len(stage.clips.canvases())} canvases would be "
            f"compiled anew; give {name}.clips.heights=null, or do not compile"
        )


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
