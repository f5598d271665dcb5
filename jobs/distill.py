"""Distil a student from unlabelled videos: `vsdmot distill /data/cams`."""

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
    # After the settings: torch takes seconds to import, and a spelling mistake should not.
    from model.learn.training import TrainingError
    from pipeline.runtime.stop import ClusterError
    from pipeline.storage.files import StorageError
    from pipeline.training.feature_cache import FeatureCacheError
    from pipeline.training.progress import progress_bar

    try:
        with progress_bar(job.training) as watch:
            path = run(job, watch)
    except (TrainingError, ClusterError, FeatureCacheError, StorageError, ValueError) as error:
        fail(str(error), EXIT_FAILED)
    except KeyboardInterrupt:
        console.print(f"stopped; the same command goes on from {job.output}", soft_wrap=True)
        return 130
    console.print(f"weights: {path}", soft_wrap=True, highlight=False)
    return EXIT_DONE


def run(job: DistillJob, watch: Callable[[Progress], None]) -> str:
    """Distil to the end of the budget, from the last checkpoint if there is one.

    Returns:
        where the weights are.

    Raises:
        StorageError: the archive is empty or cannot be read, or the output cannot be written.
        ValueError: no readable video, no such teacher, weights or cache that do not fit.
        TrainingError: the loss is not finite, or the output holds another run.
    """
    from model.allocator import keep_large_blocks
    from pipeline.training.archive_frames import ArchiveFrames, read_archive_videos
    from pipeline.training.distill_parts import build_trainer, open_stream, write_weights
    from pipeline.training.fit import fit_logged
    from pipeline.training.picture import BatchInspector
    from pipeline.training.run_folder import RunFolder
    from pipeline.training.student import student_file
    from pipeline.training.work import Fit

    keep_large_blocks()
    videos, broken = read_archive_videos(job.input, job.output, job.probe_threads)
    for line in broken:
        _left_out(line)
    folder = RunFolder(job.output)
    folder.claim(asdict(job), FREE)
    job = job.located()
    frames = ArchiveFrames(videos, job.frames, job.training.seed)
    if job.cache.path:
        cache = _cache(job, frames)
        frames = ArchiveFrames(videos, job.frames, job.training.seed, cache)
        teacher, statistics = cache.identity.teacher, cache.statistics
    else:
        teacher, statistics = _statistics(job, frames)
    names = [video.relative_path for video in videos]
    what = Fit(
        config=job.training,
        build=partial(build_trainer, job, frames, teacher, statistics),
        stream=partial(open_stream, frames),
        finish=partial(write_weights, job, names),
        output=job.output,
        inspector=BatchInspector(),
        look_every=job.picture_every,
    )
    warned = set(broken)

    def report(progress: Progress) -> None:
        warned.update(progress.problems)
        watch(progress)

    fit_logged(what, job.cluster, job.worker, job.mlflow, asdict(job), report, _warn)
    if warned:
        console.print(f"{len(warned)} files or places in them could not be read", highlight=False)
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
    """Of the first frames; measured once, or a resumed run would go on with another loss."""
    import torch

    from model.teach.teacher import load_teacher
    from model.teach.teacher_statistics import measure_statistics
    from pipeline.training.feature_cache import read_statistics, write_statistics

    device = "cuda" if torch.cuda.is_available() and job.worker.device != "cpu" else "cpu"
    teacher = load_teacher(job.teacher.model, job.teacher.pretrained, device)
    found = read_statistics(job.output)
    if found is None:
        found = measure_statistics(teacher.info, _first_features(frames, teacher, device))
        write_statistics(job.output, found)
    return teacher.info, found


def _first_features(
    frames: ArchiveFrames, teacher: Teacher, device: str
) -> Iterator[TeacherFeatures]:
    from pipeline.training.archive_frames import collate_frames

    # A frame shows hundreds of positions: thousands of frames are never asked for.
    for index in range(1000):
        batch = collate_frames([frames[index]]).to(device)
        yield teacher(batch.clean, batch.valid)


def _left_out(line: str) -> None:
    console.print(f"[yellow]left out:[/] {escape(line)}", soft_wrap=True, highlight=False)


def _warn(line: str) -> None:
    console.print(f"[yellow]warning:[/] {escape(line)}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
