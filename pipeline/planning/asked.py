"""What a run would have to do: the videos of an archive that are not done, as `track` plans them.

The archive is gone through by the same classes as in a run. Nothing is written.
"""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from rich.console import Console

from model.track.checkpoint import read_metadata
from pipeline.archive.ahead import Ahead
from pipeline.archive.archive import Archive, Counts, read_here
from pipeline.archive.id_set import IdSet
from pipeline.archive.inputs import find_files
from pipeline.archive.manifest import Manifest
from pipeline.archive.plan import Mode, Segment, Split, Way, length_s, plan, told
from pipeline.archive.survey import Unreadable
from pipeline.planning.config import PlanConfig
from pipeline.planning.wanted import wanted_frames, wanted_stretch
from pipeline.report.run_figures import what_to_do
from pipeline.runtime.machine import usable_cores
from pipeline.runtime.progress import waiting_line
from pipeline.runtime.settings import Pool
from pipeline.runtime.stop import StopRequest
from pipeline.storage import files as storage
from pipeline.storage.run_record import check_output
from pipeline.tracking.config import TrackConfig
from pipeline.tracking.memory_estimate import MemoryEstimate, RunMemory
from pipeline.tracking.parts import modes_begun
from pipeline.tracking.run import CHUNK, FIRST, ids_done
from pipeline.tracking.settings import worker_settings
from pipeline.tracking.track_video import TrackSettings, local_weights
from pipeline.video.info import VideoInfo
from pipeline.video.only import Wanted
from pipeline.video.region import RegionError

_KEPT = 4096  # videos of which some are tracked for a trial


@dataclass(frozen=True, slots=True)
class Dead:
    """A file that would become a dead letter, or that storage fails on.

    Attributes:
        path: In the archive.
        reason: Why.
        remedy: What to do.
    """

    path: str
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run would work.

    Attributes:
        device: "cpu" or "cuda".
        room: Workers that there is room for.
        here: Whether it is this machine.
    """

    device: str
    room: int
    here: bool


@dataclass(slots=True)
class Chunk:
    """Pieces of work that are handed out together; the next ones come when all are done.

    Attributes:
        workers: Workers at the start of the chunk.
        frames: Frames of each piece: of a video, or of a window of one.
        pixels: Pixels of the picture of each piece.
    """

    workers: int
    frames: array[float] = field(default_factory=lambda: array("d"))
    pixels: array[float] = field(default_factory=lambda: array("d"))


@dataclass(slots=True)
class Asked:
    """What a run would have to do.

    Attributes:
        settings: Of its workers.
        place: Where it would work.
        counts: Files found.
        videos, size_bytes, footage_s, frames: Of the videos that it would track. Of those whose
            header tells no length, frames are guessed from bytes, and seconds are not counted.
        unknown: Number of these.
        dead, unread: Files that would become dead letters, and those that storage fails on; as
            many as are listed.
        dead_count: All of the former.
        ways: Sentences of `vsdmot track` on how videos would be tracked, and why.
        modes: Videos by mode.
        windows: Windows of videos in mode `parallel`.
        chunks: The work.
        memory: Of a worker, at most; None if there is nothing to track.
        longest: By the pixels of a picture, path and frames of the video with most frames in one
            piece.
        begun: Videos that an earlier run began; their parts are not counted as done.
        sample: Some of the videos, drawn evenly.
    """

    settings: TrackSettings
    place: Place
    counts: Counts = field(default_factory=Counts)
    videos: int = 0
    size_bytes: int = 0
    footage_s: float = 0.0
    frames: float = 0.0
    unknown: int = 0
    dead: list[Dead] = field(default_factory=list)
    unread: list[Dead] = field(default_factory=list)
    dead_count: int = 0
    ways: list[str] = field(default_factory=list)
    modes: Counter[str] = field(default_factory=Counter)
    windows: int = 0
    chunks: list[Chunk] = field(default_factory=list)
    memory: MemoryEstimate | None = None
    longest: dict[int, tuple[str, float]] = field(default_factory=dict)
    begun: int = 0
    sample: list[VideoInfo] = field(default_factory=list)


def go_through(config: PlanConfig, place: Place, stop: StopRequest, console: Console) -> Asked:
    """Go through the archive as a run does.

    Args:
        config: Settings of the plan.
        place: Where a run would work.
        stop: Checked several times a second.
        console: Shows how many files were gone through.

    Raises:
        StorageError: The archive or the output cannot be read, or there is no video.
        RunRefused: The output holds results of other settings.
        CheckpointError: The weights cannot be used.
        RuntimeUnavailable: The runtime that is asked for cannot be used.
        MemoryRefused: The workers do not fit into this machine.
        Stopped: A signal asked for the end.
    """
    output = config.output.rstrip("/")
    files = find_files(config.input, output)
    settings, deciding = worker_settings(config)
    if output:
        check_output(output, TrackConfig.job, deciding)
    asked = Asked(replace(settings, device=place.device), place)
    done, dead, begun = _earlier(config, output)
    asked.begun = len(begun)

    def is_dead(file: Unreadable) -> None:
        asked.dead_count += 1
        one = Dead(file.relative_path, file.error, what_to_do({"kind": file.kind}))
        _listed(asked.dead, config, one)

    def is_unread(path: str, reason: str) -> None:
        _listed(asked.unread, config, Dead(path, reason, "run again when the storage answers"))

    with (
        Manifest(output, settings.run, config.retry_dead_letters, dry=True) as manifest,
        read_here(config.probe_threads, settings.limits) as here,
    ):
        archive = Archive(
            output,
            manifest,
            done=done,
            dead=dead,
            read=here,
            unread=is_unread,
            limits=settings.limits,
            dead_letter=is_dead,
        )
        asked.counts = archive.counts
        videos = Ahead(archive.videos(files), CHUNK)
        try:
            with waiting_line(console, lambda: archive.counts.files) as wait:

                def check() -> None:
                    stop.check()
                    wait()

                _add_chunks(asked, config, lambda count: videos.take(count, check), begun)
        finally:
            videos.leave()
    return asked


def local_place(config: TrackConfig) -> Place:
    """Where a run would work on this machine."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = "cuda" if gpus else "cpu"
    if config.cluster.workers == 0:
        return Place(device, 1, here=True)
    cores = max(usable_cores(), config.cluster.greatest() or 1)
    return Place(device, gpus * int(1 / config.cluster.gpu_share) or cores, here=True)


def _earlier(config: PlanConfig, output: str) -> tuple[IdSet, IdSet, dict[str, Mode]]:
    """Ids that are done and dead in the output, and the modes of the videos that are begun."""
    if not output:
        return IdSet(), IdSet(), {}
    done, dead = ids_done(output), IdSet()
    if not config.retry_dead_letters:
        letters = storage.iter_stems(f"{output}/dead_letters")
        dead = IdSet(video_id for video_id in letters if video_id not in done)
    return done, dead, modes_begun(output, done, dead)[0]


def _add_chunks(
    asked: Asked,
    config: PlanConfig,
    take: Callable[[int], list[VideoInfo]],
    begun: Mapping[str, Mode],
) -> None:
    """Plan the videos chunk by chunk, with the sizes of chunks of a run."""
    with local_weights(asked.settings.weights) as path:
        memory = RunMemory(read_metadata(path).model, asked.settings)
    ways: Counter[Way] = Counter()
    sample = _Sample(asked.sample)
    in_process = config.cluster.workers == 0
    split = Split(config.split.mode, config.split.seconds, 1, config.only.whole_videos)
    size = FIRST
    while some := take(size):
        size = CHUNK
        wanted = [info for info in some if _has_frames(asked, config, info)]
        if not wanted:
            continue
        pool = Pool(1, 1, 1) if in_process else config.cluster.pool(asked.place.room)
        split = replace(split, workers=pool.start)
        segments, by_id = plan(wanted, split, begun)
        ways.update(by_id.values())
        need = memory.estimate(wanted, config.cluster.streams or 1)
        if asked.memory is None or need.total > asked.memory.total:
            asked.memory = need
        pool = pool.at_most(len(segments))
        # Of machines that are not at hand, the memory is not known.
        here = asked.place.here and config.rate is None
        workers = memory.fitting_actors(need, pool) if here else pool.start
        asked.chunks.append(_chunk(asked, config, segments, workers))
        for info in wanted:
            _count(asked, config, info)
            sample.add(info)
    asked.ways = told(ways.elements(), split)
    for way, count in ways.items():
        asked.modes[way.mode] += count
        asked.windows += count * way.windows if way.mode == "parallel" else 0


def _chunk(asked: Asked, config: PlanConfig, segments: Sequence[Segment], workers: int) -> Chunk:
    chunk = Chunk(workers)
    for segment in segments:
        info, frames = segment.info, wanted_frames(segment.info, config)
        if segment.window is not None:
            # All windows but the first begin earlier than their rows do.
            index, count = segment.window
            frames = frames / count + (config.split.overlap_s * (info.fps or 0) if index else 0)
        chunk.frames.append(frames)
        pixels = info.width * info.height
        chunk.pixels.append(pixels)
        if pixels not in asked.longest or frames > asked.longest[pixels][1]:
            asked.longest[pixels] = info.relative_path, frames
    return chunk


def _count(asked: Asked, config: PlanConfig, info: VideoInfo) -> None:
    seconds = length_s(info)
    asked.videos += 1
    asked.size_bytes += info.size_bytes
    asked.frames += wanted_frames(info, config)
    asked.unknown += seconds is None
    if seconds is not None:
        start_s, end_s = wanted_stretch(config, seconds)
        asked.footage_s += end_s - start_s


def _has_frames(asked: Asked, config: PlanConfig, info: VideoInfo) -> bool:
    """Whether a video has frames that the settings want; one that has none would be dead."""
    problem = ""
    if config.only.region:
        try:
            Wanted.of(config.only, info)
        except RegionError as error:
            problem = str(error)
    seconds = length_s(info)
    if seconds is not None and wanted_stretch(config, seconds)[1] <= config.only.start_s > 0:
        problem = "no frame lies in the stretch that only.start_s and only.end_s want"
    if problem:
        asked.dead_count += 1
        remedy = "change the settings of only, or leave the file out"
        _listed(asked.dead, config, Dead(info.relative_path, problem, remedy))
    return not problem


def _listed(listed: list[Dead], config: PlanConfig, one: Dead) -> None:
    if config.plan.listed is None or len(listed) < config.plan.listed:
        listed.append(one)


class _Sample:
    """Keeps some of many videos, each with the same chance."""

    def __init__(self, kept: list[VideoInfo]) -> None:
        self._kept, self._seen, self._random = kept, 0, random.Random(0)

    def add(self, info: VideoInfo) -> None:
        self._seen += 1
        if len(self._kept) < _KEPT:
            self._kept.append(info)
        elif (place := self._random.randrange(self._seen)) < _KEPT:
            self._kept[place] = info
