"""The parts of a distillation that are sent to its workers: the trainer and the frames."""

from collections.abc import Sequence
from dataclasses import asdict

import torch

from model.communicator import Communicator
from model.learn.calibrate import calibrate
from model.learn.frame_loss import DistillObjective
from model.learn.training import Trainer
from model.teach.distillation import Distiller, distiller_bytes, distiller_path
from model.teach.teacher import TeacherInfo
from model.teach.teacher_statistics import TeacherStatistics
from model.track.checkpoint import CheckpointMetadata, checkpoint_bytes, read_metadata
from model.track.tracker import Tracker
from model.version import code_version
from pipeline.teachers.load import follow_average, load_teacher
from pipeline.training.archive_frames import ArchiveFrames, collate_frames
from pipeline.training.batches import Stream
from pipeline.training.distill_job import DistillJob
from pipeline.training.run_folder import RunFolder
from pipeline.training.student import choose_kernels, frames_before, start_student, student_file

_CALIBRATION_FRAMES = 32


def build_trainer(
    job: DistillJob,
    frames: ArchiveFrames,
    teacher: TeacherInfo,
    statistics: TeacherStatistics,
    device: torch.device,
    communicator: Communicator,
) -> Trainer:
    """Make the trainer of a distillation; its weights are the same in every process.

    Raises:
        CheckpointError: the weights to start from cannot be used.
        TeacherError: the teacher cannot be loaded.
        FramesError: no frame of the archive can be read.
        KernelError: the kernels of the settings cannot be used here.
    """
    tracker = first_student(job, frames).to(device)
    distiller = Distiller(job.distillation, tracker.config.semantic_dim, teacher, statistics)
    loaded = None  # with a cache the teacher itself is not needed
    if not job.cache.path:
        loaded = load_teacher(job.teacher, device, student=tracker)
    objective = DistillObjective(distiller, loaded)
    choose_kernels(tracker, job.worker.kernels, device)
    trainer = Trainer(tracker, objective, job.training, device, communicator)
    if loaded is not None and job.teacher.moves:
        follow_average(loaded, trainer.average.values)
    return trainer


def first_student(job: DistillJob, frames: ArchiveFrames) -> Tracker:
    """The student before its first step, the same in every process.

    Raises:
        CheckpointError: the weights to start from cannot be used.
        FramesError: no frame of the archive can be read.
    """
    tracker = start_student(job.size, job.start, job.imagenet, None, job.training.seed)
    if not job.start:
        first = (frames[i] for i in range(_CALIBRATION_FRAMES))
        calibrate(tracker, (collate_frames([frame]) for frame in first))
    return tracker


def open_stream(frames: ArchiveFrames) -> Stream:
    """Open the frames to train on."""
    return Stream(frames, collate_frames)


def write_weights(
    job: DistillJob, videos: Sequence[str], trainer: Trainer, figures: dict[str, float]
) -> None:
    """Write the averaged student, and beside it the projectors, which `vsdmot measure` needs.

    Args:
        job: with absolute paths.
        videos: names of the videos that frames are drawn from.
        trainer: at the end of the training.
        figures: the score, empty without one.
    """
    tracker, objective = trainer.averaged(), trainer.objective
    assert isinstance(objective, DistillObjective)
    settings = {k: asdict(v) for k, v in (("frames", job.frames), ("training", job.training))}
    metadata = CheckpointMetadata(
        model=tracker.config,
        training={
            "job": "distill",
            **settings,
            "distillation": asdict(job.distillation),
            "teacher_licence": objective.distiller.teacher.licence,
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
