"""Measure how fast tracking is, and against what: `vsdmot bench VIDEO`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from jobs.cli import EXIT_DONE, EXIT_FAILED, console, fail, load_config, print_config
from model.settings import NotEmpty, Range, check
from pipeline.speed.config import ScalingConfig

if TYPE_CHECKING:
    from pipeline.video.info import VideoInfo

Name = Literal[
    "student",
    "path",
    "still",
    "teacher",
    "job",
    "long",
    "memory",
    "inputs",
    "queries",
    "overlay",
    "scaling",
]


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """Settings of `vsdmot bench`.

    Attributes:
        video: a video file or URL, of a crowd if possible.
        weights: weights file of the student.
        output: folder or URL for bench.json; measures that are not taken keep their figures
            of the run before.
        measures: what is measured. student: size and time by module. path: the path from file to
            rows on one core, by runtime and precision, and against YOLOX and ByteTrack. still: a
            fixed camera, mostly quiet. teacher: against a ViT-B/32 on every frame. job: the
            job on Ray. long: one long recording in one pass, in windows, and on two workers;
            and ten hours on more by a model. memory: of a minute and an hour. inputs: the
            driver's RAM and time by the number of files, on a disk and on S3. queries: the
            tables of many videos in DuckDB, before and after vsdmot compact. overlay: drawing on
            full-HD video, in units of real time. scaling: where GPUs saturate, by a model.
        detector: YOLOX in ONNX for the comparisons; empty leaves them out.
        still: a short video of a fixed camera, of which the quiet one is made; empty takes video.
        still_s: its length in seconds.
        long_s: length of the long recording in seconds; it is made of video.
        frames: greatest number of frames of a reading.
        repeats: turns of a measure; a job has at most two, a long recording one.
        videos: number of made videos whose tables are queried.
        inputs: greatest number of files for the driver, up to 10,000 of them on S3.
        scaling: what the model of the schedule takes as given.
    """

    job: ClassVar[str] = "bench"
    about: ClassVar[str] = "Measure how fast tracking is, on one video, and against what."

    video: Annotated[str, NotEmpty()]
    weights: Annotated[str, NotEmpty()] = "weights/vsdmot-nano.safetensors"
    output: Annotated[str, NotEmpty()] = "runs/bench"
    measures: tuple[Name, ...] = (
        "student", "path", "still", "teacher", "job", "memory", "scaling"
    )  # fmt: skip
    detector: str = ""
    still: str = ""
    still_s: Annotated[float, Range(1)] = 40.0
    long_s: Annotated[float, Range(4)] = 12.0
    frames: Annotated[int, Range(8)] = 48
    repeats: Annotated[int, Range(1)] = 3
    videos: Annotated[int, Range(1)] = 1000
    inputs: Annotated[int, Range(1)] = 3000
    scaling: ScalingConfig = ScalingConfig()

    def __post_init__(self) -> None:
        check(self)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(BenchConfig, argv)
    print_config(console, config)
    # Imported after the settings are checked, because torch takes seconds to import.
    from model.track.checkpoint import CheckpointError
    from pipeline.inference.runtime import RuntimeUnavailable
    from pipeline.runtime.stop import ClusterError
    from pipeline.speed.one_core import MeasureError
    from pipeline.speed.scaling import NotMeasured
    from pipeline.storage.files import StorageError
    from pipeline.trackers.detectors import DetectorError
    from pipeline.trackers.peers import PeerError
    from pipeline.video.errors import DecodeError
    from pipeline.video.probe import ProbeError

    try:
        return run(config)
    except (
        CheckpointError,
        ClusterError,
        DecodeError,
        DetectorError,
        MeasureError,
        NotMeasured,
        PeerError,
        ProbeError,
        RuntimeUnavailable,
        StorageError,
    ) as error:
        fail(str(error), EXIT_FAILED)


def run(config: BenchConfig) -> int:
    """Measure, print, and write bench.json after each measure; returns the exit code.

    Raises:
        CheckpointError, RuntimeUnavailable: The student cannot be used.
        DetectorError, PeerError: The detector or its tracker cannot be used.
        ProbeError, DecodeError: A video cannot be read.
        MeasureError: A measure cannot be taken.
        NotMeasured: The model of the schedule has not what it needs.
        ClusterError: Ray cannot be started.
        StorageError: A video or the output cannot be reached.
    """
    from pipeline.speed import bench, tables
    from pipeline.speed.machine import machine_facts
    from pipeline.speed.scaling import lines, scaling
    from pipeline.storage.files import write_atomic

    machine = machine_facts("cpu")
    video = _probed(config.video)
    there = bool(config.detector) and Path(config.detector).is_file()
    settings = bench.BenchSettings(
        video=video,
        still=_probed(config.still) if config.still else video,
        weights=str(Path(config.weights).absolute()),
        detector=config.detector if there else "",
        no_detector=f"{config.detector}: no such file"
        if config.detector
        else "no detector is given; detector=FILE.onnx names a YOLOX",
        frames=config.frames,
        repeats=config.repeats,
        still_s=config.still_s,
        long_s=config.long_s,
        videos=config.videos,
        inputs=config.inputs,
    )
    target = f"{config.output.rstrip('/')}/bench.json"
    measures = _measures_before(target)
    console.print(
        f"{machine['cpu']}, {machine['cores_usable']} cores, torch {machine['torch']}; "
        f"load {machine['load']:.1f}. Min / median / max of {config.repeats} turns.",
        soft_wrap=True, highlight=False,
    )  # fmt: skip
    for name in config.measures:
        if name == "scaling":
            found = scaling(measures, config.scaling)
            printed, record = [tables.scaling_table(found)], asdict(found)
        elif name == "student":
            cost = _student(config, video)
            printed, record = tables.student_tables(cost), asdict(cost)
        else:
            with console.status(f"measuring {name} …"):
                measure = bench.measure(name, settings)
            printed, record = tables.measure_tables(measure), asdict(measure)
        for table in printed:
            console.print(table)
        if name == "scaling":
            for line in lines(found):
                console.print(line, soft_wrap=True, highlight=False)
        load = os.getloadavg()[0]
        measures[name] = record | {"machine": machine | {"load": load}}
        content = {"config": asdict(config), "measures": measures}
        write_atomic(target, (json.dumps(content, indent=2) + "\n").encode())
    console.print(f"written to {target}", soft_wrap=True, highlight=False)
    return EXIT_DONE


def _student(config: BenchConfig, video: VideoInfo) -> Any:
    import torch

    from pipeline.speed.student import student_cost
    from pipeline.tracking.track_video import TrackSettings, open_tracker

    settings = TrackSettings(config.weights)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with console.status("measuring student …"):
        cost = student_cost(open_tracker(settings), video, settings, config.frames)
    torch.set_num_threads(threads)
    return cost


def _measures_before(target: str) -> dict[str, Any]:
    from pipeline.storage.files import exists, read_bytes

    if not exists(target):
        return {}
    measures: dict[str, Any] = json.loads(read_bytes(target)).get("measures", {})
    return measures


def _probed(video: str) -> VideoInfo:
    from pipeline.storage.files import list_videos
    from pipeline.video.probe import probe

    files = list(list_videos(video))
    if len(files) != 1:
        fail(f"video={video}: {len(files)} videos found; give one file", EXIT_FAILED)
    return probe(files[0])


if __name__ == "__main__":
    sys.exit(main())
