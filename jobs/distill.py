"""Distil a student from a teacher on unlabelled videos: `vsdmot distill /data/cams`.

Exit codes: 0 done; 1 failed; 2 a bad setting; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from rich.markup import escape

from jobs.cli import EXIT_DONE, EXIT_FAILED, console, fail, load_config, print_config
from pipeline.training.distill_job import FREE, DistillJob

if TYPE_CHECKING:
    from model.learn.training import Progress
    from model.teach.teacher import Teacher, TeacherFeatures, TeacherInfo
    from model.teach.teacher_statistics import TeacherStatistics
    from pipeline.training.archive_frames import ArchiveFrames
    from pipeline.training.feature_cache import FeatureCache


def main(argv: list[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    job = load_config(DistillJob, argv)
    print_config(console, job)
    # Imported after the settings are checked, because torch takes seconds to import.
    from model.learn.training import TrainingError
    from pipeline.runtime.stop import ClusterError
    from pipeline.storage.files import StorageError
    from pipeline.training.feature_cache import FeatureCacheError
    from pipeline.training.progress import progress_bar

    try:
        with progress_bar(job.training) as on_progress:
            path = run(job, on_progress)
    except (TrainingError, ClusterError, FeatureCacheError, StorageError, ValueError) as error:
        fail(str(error), EXIT_FAILED)
    except KeyboardInterrupt:
        console.print(f"stopped; the same command resumes the run in {job.output}", soft_wrap=True)
        return 130
    console.print(f"weights: {path}", soft_wrap=True, highlight=False)
    return EXIT_DONE


def run(job: DistillJob, on_progress: Callable[[Progress], None]) -> str:
    """Distil to the end of the budget; a checkpoint in the output is resumed.

    Args:
        job: settings.
        on_progress: called after each step.

    Returns:
        path or URL of the weights.

    Raises:
        StorageError: the archive is empty or cannot be read, or the output cannot be written.
        ValueError: no video can be read, the teacher, the start weights or the cache cannot be
            used, or the output holds a run with other settings.
        TrainingError: see `fit`.
    """
    from model.allocator import keep_large_blocks
    from pipeline.teachers.load import teacher_id
    from pipeline.training.archive_frames import ArchiveFrames, read_archive_videos
    from pipeline.training.distill_parts import build_trainer, open_stream, write_weights
    from pipeline.training.fit import fit_logged
    from pipeline.training.run_folder import RunFolder
    from pipeline.training.snapshot import SnapshotMaker
    from pipeline.training.student import student_file
    from pipeline.training.worker import TrainingTask

    keep_large_blocks()
    videos, broken = read_archive_videos(job.input, job.output, job.probe_threads)
    for line in broken:
        _left_out(line)
    folder = RunFolder(job.output)
    identity = teacher_id(job.teacher)
    folder.claim(asdict(job), FREE)
    folder.claim_teacher(identity)
    job = job.located()
    draw = partial(ArchiveFrames, videos, job.frames, job.training.seed)
    frames = draw(clean_scale=job.teacher.scale)
    if job.cache.path:
        cache = _cache(job, frames)
        frames = draw(cache)
        teacher, statistics = cache.identity.teacher, cache.statistics
    else:
        teacher, statistics = _statistics(job, frames)
    names = [video.relative_path for video in videos]
    task = TrainingTask(
        config=job.training,
        build=partial(build_trainer, job, frames, teacher, statistics),
        stream=partial(open_stream, frames),
        finish=partial(write_weights, job, names),
        output=job.output,
        make_snapshot=SnapshotMaker(),
        snapshot_every=job.picture_every,
    )
    unreadable = set(broken)

    def count_problems(progress: Progress) -> None:
        unreadable.update(progress.problems)
        on_progress(progress)

    fit_logged(
        task,
        job.cluster,
        job.worker,
        job.mlflow,
        settings=asdict(job),
        on_progress=count_problems,
        warn=_warn,
    )
    if unreadable:
        console.print(
            f"{len(unreadable)} files, or frames of files, could not be read", highlight=False
        )
    return folder.path(student_file(job.size))


def _cache(job: DistillJob, frames: ArchiveFrames) -> FeatureCache:
    from pipeline.training.make_features import cache_features

    _, workers = job.cluster.least_and_most()
    if not workers:
        return cache_features(frames, job.teacher, job.cache, 0, _left_out)
    from pipeline.tracking.on_ray import connected  # Ray takes seconds to import

    with connected(job.cluster.address, workers):
        return cache_features(frames, job.teacher, job.cache, workers, _left_out)


def _statistics(job: DistillJob, frames: ArchiveFrames) -> tuple[TeacherInfo, TeacherStatistics]:
    """Statistics of the teacher's features on the first frames.

    They are stored in the output, because a resumed run needs the same ones for the same loss.
    """
    import torch

    from model.teach.teacher_statistics import measure_statistics
    from pipeline.teachers.load import load_teacher
    from pipeline.training.distill_parts import first_student
    from pipeline.training.feature_cache import read_statistics, write_statistics

    device = "cuda" if torch.cuda.is_available() and job.worker.device != "cpu" else "cpu"
    student = first_student(job, frames).to(device) if job.teacher.moves else None
    teacher = load_teacher(job.teacher, device, student=student)
    found = read_statistics(job.output)
    if found is None:
        found = measure_statistics(teacher.info, _first_features(frames, teacher, device))
        write_statistics(job.output, found)
    return teacher.info, found


def _first_features(
    frames: ArchiveFrames, teacher: Teacher, device: str
) -> Iterator[TeacherFeatures]:
    from pipeline.training.archive_frames import collate_frames

    # Each frame has hundreds of positions, so the statistics need far fewer than 1000 frames.
    for index in range(1000):
        batch = collate_frames([frames[index]]).to(device)
        yield teacher(batch.clean, batch.valid)


def _left_out(line: str) -> None:
    console.print(f"[yellow]left out:[/] {escape(line)}", soft_wrap=True, highlight=False)


def _warn(line: str) -> None:
    console.print(f"[yellow]warning:[/] {escape(line)}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
