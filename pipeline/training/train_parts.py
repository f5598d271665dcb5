"""The parts of a training that are sent to its workers: the trainer, the clips, the score.

This module imports only packages that a bare GPU machine has.
"""

import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import torch

from model.communicator import Communicator
from model.learn.calibrate import calibrate
from model.learn.clip_batch import ClipBatch
from model.learn.clip_loss import ClipObjective
from model.learn.object_distillation import ObjectDistiller, mean_vector
from model.learn.part_loss import PartObjective, train_only
from model.learn.training import Objective, Trainer
from model.teach.distillation import Distiller, distiller_bytes, distiller_path, load_distiller
from model.teach.teacher import ObjectTeacher, ObjectTeacherInfo, Teacher, TeacherInfo
from model.teach.teacher_statistics import measure_statistics
from model.track.checkpoint import (
    CheckpointMetadata,
    checkpoint_bytes,
    read_metadata,
)
from model.track.tracker import Tracker
from model.version import code_version
from pipeline.clips.alternating import Alternating
from pipeline.clips.clips import Clips, collate_clips
from pipeline.datasets.shards import Shards, require_train, require_val
from pipeline.teachers.load import (
    follow_average,
    load_object_teacher,
    load_teacher,
    teacher_id,
)
from pipeline.training.batches import Stream
from pipeline.training.run_folder import RunFolder
from pipeline.training.snapshot import SnapshotMaker
from pipeline.training.still_score import score_stills
from pipeline.training.student import choose_kernels, frames_before, start_student, student_file
from pipeline.training.train_job import FREE, TrainJob
from pipeline.training.worker import TrainingTask

_CALIBRATION_CLIPS = 16
_CLIPS_WITH_PEOPLE = 200  # the first clips, in which a teacher of people looks for some


def claim(folder: RunFolder, job: TrainJob) -> None:
    """Write the settings of the job, and the id of its teacher, into the folder of its run.

    Raises:
        RunFolderError: the folder holds a run with other settings or another teacher.
        TeacherError: there is no such teacher.
    """
    identity = teacher_id(job.teacher) if job.taught else "none"
    folder.claim(asdict(job), FREE)
    folder.claim_teacher(identity)


def training_task(job: TrainJob, shards: Shards) -> TrainingTask:
    """The task for `fit`, with absolute paths for workers in other processes.

    Raises:
        ShardError: a score is wanted, but the shards have no stills of split `val`.
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
        teacher=job.teacher.located(),
    )
    return TrainingTask(
        config=job.training,
        build=partial(build_trainer, job, tuple(shards.classes)),
        stream=partial(open_clips, job),
        finish=partial(write_weights, job),
        output=job.output,
        make_snapshot=SnapshotMaker(),
        snapshot_every=job.picture_every,
        score=partial(score, job) if job.training.score else None,
        step_sizes=job.step_sizes,
    )


def build_trainer(
    job: TrainJob, classes: tuple[str, ...], device: torch.device, communicator: Communicator
) -> Trainer:
    """Make the trainer of a job; its weights are the same in every process.

    Raises:
        CheckpointError: the weights to start from cannot be used.
        TeacherError: the teacher cannot be loaded.
        KernelError: the kernels of the settings cannot be used here.
    """
    tracker = start_student(job.size, job.start, job.imagenet, classes, job.training.seed)
    if not job.start:
        clips = _clips(job)
        calibrate(tracker, (collate_clips([clips[i]]) for i in range(_CALIBRATION_CLIPS)))
    if job.learn:
        train_only(tracker, job.learn)
    teacher = distiller = people = None
    if job.taught:
        tracker.to(device)
        if (of_people := load_object_teacher(job.teacher, device)) is not None:
            people = _object_distiller(job, tracker, of_people, device)
        else:
            teacher = load_teacher(job.teacher, device, student=tracker)
            distiller = _distiller(job, tracker, teacher, device)
    objective: Objective = ClipObjective(distiller, teacher, people)
    if job.learn:
        objective = PartObjective(job.learn, distiller, teacher)
    choose_kernels(tracker, job.worker.kernels, device)
    trainer = Trainer(tracker, objective, job.training, device, communicator)
    if teacher is not None and job.teacher.moves:
        follow_average(teacher, trainer.average.values)
    return trainer


def open_clips(job: TrainJob) -> Stream:
    """Open the clips to train on.

    Raises:
        ShardError: there are no shards, or one cannot be read.
    """
    clips = _alternating(job) if job.singles.steps else _clips(job)
    if job.worker.loaders and job.cluster.workers == 0:
        # Loaders are forks of this process, so they share its memory. A picture that cannot be
        # read is reported when it is drawn.
        clips.preload(os.cpu_count() or 1)
    return Stream(clips, collate_clips)


def score(job: TrainJob, tracker: Tracker) -> dict[str, float]:
    """Score a student on the stills of split `val`.

    Returns:
        see `score_stills`.
    """
    return score_stills(tracker, Shards(job.shards), next(tracker.parameters()).device)


def weights_path(job: TrainJob) -> str:
    """Path or URL of the weights file of the student."""
    return RunFolder(job.output).path(student_file(job.size))


def write_weights(job: TrainJob, trainer: Trainer, figures: dict[str, float]) -> None:
    """Write the averaged student, and beside it the projectors, which `vsdmot measure` needs.

    Args:
        job: settings of the training.
        trainer: at the end of the training.
        figures: the score, empty without one.
    """
    shards, tracker = Shards(job.shards), trainer.averaged()
    sequences = [shards.sequences[i] for i in require_train(shards)]
    distiller = _distiller_of(job, trainer)
    teacher = _teacher_of(trainer, distiller)
    started_from = _start_metadata(job)
    metadata = CheckpointMetadata(
        model=tracker.config,
        training={
            "learn": list(job.learn),
            "clips": asdict(job.clips),
            "singles": asdict(job.singles) if job.singles.steps else None,
            "training": asdict(job.training),
            "distillation": asdict(job.distillation) if job.taught else None,
            "teacher_licence": teacher.licence if teacher else None,
            "steps": trainer.step,
            "minutes": round(trainer.position.seconds / 60, 2),
            "frames": trainer.position.frames + frames_before(started_from),
            "sequences": len(sequences),
            "videos": [s.name for s in sequences if s.fps > 0],
            "started_from": started_from,
        },
        teacher=teacher.id if teacher else "none",
        code_version=code_version(),
        metrics=figures,
    )
    folder, name = RunFolder(job.output), student_file(job.size)
    if distiller is not None:
        folder.write(distiller_path(name).name, distiller_bytes(distiller))
    folder.write(name, checkpoint_bytes(tracker.state_dict(), metadata))


def _clips(job: TrainJob) -> Clips:
    shards = Shards(job.shards)
    c = job.training
    scale = job.teacher.scale if job.taught else None
    return Clips(shards, job.clips, c.seed, batch=max(job.step_sizes), clean_scale=scale)


def _alternating(job: TrainJob) -> Alternating:
    """Single frames and clips in turn; they share their decoded pictures."""
    clips = _clips(job)
    singles = Clips(
        clips.shards,
        job.singles.clips,
        clips.seed,
        batch=clips.batch,
        clean_scale=clips.clean_scale,
        store=clips.store,
    )
    return Alternating(singles, clips, job.singles.steps)


def _distiller_of(job: TrainJob, trainer: Trainer) -> Distiller | None:
    """Projectors to write beside the weights: trained ones, else those of the start weights."""
    assert isinstance(trainer.objective, ClipObjective | PartObjective)
    if trainer.objective.distiller is not None or not job.learn:
        return trainer.objective.distiller
    path = distiller_path(job.start)
    return load_distiller(path) if path.is_file() else None


def _teacher_of(
    trainer: Trainer, distiller: Distiller | None
) -> TeacherInfo | ObjectTeacherInfo | None:
    """The teacher that the weights learned from."""
    if isinstance(trainer.objective, ClipObjective) and trainer.objective.objects is not None:
        return trainer.objective.objects.teacher
    return distiller.teacher if distiller else None


def _distiller(
    job: TrainJob, tracker: Tracker, teacher: Teacher, device: torch.device
) -> Distiller:
    """Load the projectors beside the start weights if they fit the teacher, else make new ones.

    Raises:
        CheckpointError: the projectors beside the start weights cannot be read.
    """
    if job.start and distiller_path(job.start).is_file():
        distiller = load_distiller(distiller_path(job.start), job.distillation)
        if distiller.teacher == teacher.info:
            # The file may be older than the note on the licence.
            distiller.teacher = teacher.info
            return distiller
    features = (
        teacher(clip.clean.flatten(0, 1), clip.valid.flatten(0, 1))
        for clip in _first_clips(job, device)
        if clip.clean is not None
    )
    statistics = measure_statistics(teacher.info, features)
    # The first projectors must not depend on the random numbers that building a teacher takes.
    torch.manual_seed(job.training.seed)
    return Distiller(job.distillation, tracker.config.semantic_dim, teacher.info, statistics)


def _object_distiller(
    job: TrainJob, tracker: Tracker, teacher: ObjectTeacher, device: torch.device
) -> ObjectDistiller:
    """Make the projector to a teacher of people, and take the mean of its vectors.

    Raises:
        TeacherError: the first clips show nobody.
    """
    mean = mean_vector(teacher, islice(_first_clips(job, device), _CLIPS_WITH_PEOPLE))
    torch.manual_seed(job.training.seed)
    return ObjectDistiller(job.distillation, tracker.config.dim, teacher, mean)


def _first_clips(job: TrainJob, device: torch.device) -> Iterator[ClipBatch]:
    """Clips one by one, on a device, without end."""
    clips = _clips(job)
    return (collate_clips([clips[i]]).to(device) for i in count())


def _start_metadata(job: TrainJob) -> Any:
    """Training metadata of the start weights, or a text if the student was new."""
    if job.start:
        return dict(read_metadata(job.start).training)
    return f"ImageNet weights: {Path(job.imagenet).name}" if job.imagenet else "random weights"


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else ""
