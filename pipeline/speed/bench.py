"""The measures of `vsdmot bench`: what is compared, on what, and what the ratios should reach."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pipeline.speed import ray_jobs
from pipeline.speed.archives.long_video import long_measure
from pipeline.speed.archives.many_inputs import inputs_measure
from pipeline.speed.footage import quiet_video
from pipeline.speed.memory_growth import memory_growth
from pipeline.speed.one_core import all_cores, one_core
from pipeline.speed.peer_path import peer_reading
from pipeline.speed.queries.measure import queries_measure
from pipeline.speed.readings import Measure, Reading, Spread, in_turns, ratio
from pipeline.speed.student_path import (
    Kind,
    core_limit,
    decode_reading,
    difference,
    model_reading,
    path_reading,
    path_rows,
    runtime_name,
    track_settings,
)
from pipeline.speed.teacher_path import TOWER, teacher_reading
from pipeline.storage.files import list_videos
from pipeline.video.info import VideoInfo
from pipeline.video.probe import probe

MeasureName = Literal[
    "path", "still", "teacher", "job", "long", "memory", "inputs", "queries", "overlay"
]
MEASURES: tuple[MeasureName, ...] = (
    "path", "still", "teacher", "job", "long", "memory", "inputs", "queries", "overlay"
)  # fmt: skip
_KINDS: tuple[Kind, ...] = ("torch", "exact", "fast")
_PEER = "YOLOX + ByteTrack"
_JOBS_TURNS = 2  # a reading of a job takes as long as all others together
_TOWER_FRAMES = 8  # the tower takes half a second a frame
_DRIVER_ROWS = 300
_PLAIN_FRAMES = 200  # more than of others, because Ray reads ahead of them


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """What is measured on what.

    Attributes:
        video: The video of all measures but `still`.
        still: A short video of a fixed camera.
        weights: Path of the student's weights.
        detector: Path of YOLOX in ONNX; "" leaves it out.
        no_detector: Why it is left out.
        frames: Greatest number of frames of a reading.
        repeats: Turns of each measure, but for those of jobs, which have at most two, and of a
            long recording, which has one.
        still_s: Seconds of the video of a fixed camera that is made of `still`.
        long_s: Seconds of the recording that is made of `video`.
        videos: Number of videos whose tables are queried.
        inputs: Greatest number of files for the driver.
    """

    video: VideoInfo
    still: VideoInfo
    weights: str
    detector: str
    no_detector: str
    frames: int
    repeats: int
    still_s: float
    long_s: float
    videos: int
    inputs: int


def measure(name: MeasureName, settings: BenchSettings) -> Measure:
    """Take one measure.

    Raises:
        MeasureError: It could not be taken.
        CheckpointError, RuntimeUnavailable: The student cannot be used.
        DetectorError, PeerError: The detector or its tracker cannot be used.
        DecodeError, StorageError: A video cannot be read.
        ClusterError: Ray cannot be started.
    """
    measures: dict[MeasureName, Callable[[BenchSettings], Measure]] = {
        "path": _path,
        "still": _still,
        "teacher": _teacher,
        "job": _job,
        "long": lambda bench: long_measure(bench.video, bench.weights, bench.long_s),
        "memory": _memory,
        "inputs": lambda bench: inputs_measure(bench.inputs),
        "queries": lambda bench: queries_measure(bench.videos, bench.repeats),
        "overlay": _overlay,
    }
    return measures[name](settings)


def _path(bench: BenchSettings) -> Measure:
    """The student by runtime and precision, and a peer."""
    info = bench.video
    by_kind = {kind: track_settings(bench.weights, kind, info, bench.frames) for kind in _KINDS}
    with one_core() as call:
        sides: dict[str, Callable[[], Reading]] = {
            str(kind): partial(call, path_reading, info, given) for kind, given in by_kind.items()
        }
        if bench.detector:
            sides[_PEER] = partial(call, peer_reading, info, bench.detector, bench.frames)
        readings = in_turns(sides, bench.repeats)
        rows = {kind: call(path_rows, info, given) for kind, given in by_kind.items()}
        ran = {kind: call(runtime_name, given) for kind, given in by_kind.items()}
        limit = call(core_limit, info, by_kind["torch"])
    ratios = [
        ratio(readings, "exact", "torch", "core", 2.2),
        ratio(readings, "fast", "torch", "core", 3.0),
    ]
    if bench.detector:
        ratios += [
            ratio(readings, "exact", _PEER, "core", 0.24),
            ratio(readings, "fast", _PEER, "core", 0.4),
        ]
    facts: dict[str, Any] = {f"{kind} runs in": name for kind, name in ran.items()}
    for kind in ("exact", "fast"):
        facts[f"{kind} against torch"] = difference(rows["torch"], rows[kind])
    facts["GFLOPs of encoding a frame"] = limit.gflops
    facts["GFLOP/s of a core in matrix products"] = limit.peak
    for kind in _KINDS:
        taken = statistics.median(r.parts["encode"] for r in readings[kind])
        least = limit.encode_ms(kind)
        facts[f"least ms of encoding in {kind}"] = least
        facts[f"{kind} has of that limit"] = least / taken
    if not bench.detector:
        facts[_PEER] = f"not measured: {bench.no_detector}"
    return Measure(
        "the path from file to rows, on one core", _on(info, bench.frames), readings, ratios, facts
    )


def _still(bench: BenchSettings) -> Measure:
    """A fixed camera whose picture is quiet most of the time, with and without skipping."""
    with tempfile.TemporaryDirectory() as folder, one_core() as call:
        path = Path(folder) / "still.mp4"
        share = quiet_video(path, bench.still, bench.still_s)
        info = probe(next(list_videos(str(path))))
        frames = info.frames_expected or round(bench.still_s * (info.fps or 25))
        exact = track_settings(bench.weights, "exact", info, frames)
        fast = track_settings(bench.weights, "fast", info, frames)
        sides: dict[str, Callable[[], Reading]] = {
            "exact, skipping": partial(call, path_reading, info, replace(exact, skip_still=True)),
            "fast, skipping": partial(call, path_reading, info, replace(fast, skip_still=True)),
        }
        if bench.detector:
            sides[_PEER] = partial(call, peer_reading, info, bench.detector, frames)
        # No turn of warming up, which would take as long as a counted one.
        for settings in (exact, fast):
            call(runtime_name, settings)
        readings = in_turns(sides, bench.repeats, warm_up=False)
    facts: dict[str, Any] = {"quiet share": share}
    ratios = []
    if bench.detector:
        ratios = [ratio(readings, name, _PEER, "core", 1.5) for name in sides if name != _PEER]
    else:
        facts[_PEER] = f"not measured: {bench.no_detector}"
    on = f"{bench.still_s:g} s made of {bench.still.relative_path}: {_on(info, frames)}"
    return Measure("a fixed camera, mostly quiet, on one core", on, readings, ratios, facts)


def _teacher(bench: BenchSettings) -> Measure:
    """The student, and the same tracker with a large image tower on every frame."""
    info = bench.video
    by_kind = {kind: track_settings(bench.weights, kind, info, _TOWER_FRAMES) for kind in _KINDS}
    sides: dict[str, Callable[[], Reading]] = {}
    with one_core() as call:
        for kind, given in by_kind.items():
            sides[kind] = partial(call, path_reading, info, given)
            sides[f"{kind} + {TOWER}"] = partial(call, teacher_reading, info, given)
        readings = in_turns(sides, bench.repeats)
    ratios = [
        ratio(readings, kind, f"{kind} + {TOWER}", "core", 10.0 if kind == "exact" else None)
        for kind in _KINDS
    ]
    ratios.append(ratio(readings, "fast", f"torch + {TOWER}", "core"))
    return Measure(
        f"the student, and the same tracker with {TOWER} on every frame, on one core",
        _on(info, _TOWER_FRAMES),
        readings,
        ratios,
        {"tower": f"{TOWER} in the student's runtime, on its canvas, random weights"},
    )


def _job(bench: BenchSettings) -> Measure:
    """The job on Ray: against its parts, with two actors, and against a plain job."""
    info, frames = bench.video, bench.frames
    exact = track_settings(bench.weights, "exact", info, frames)
    one, two, plain = "job, one actor", "job, two actors", "plain job"
    decode, model = "decode alone", "model alone"
    readings: dict[str, list[Reading]] = {name: [] for name in (one, two, plain, decode, model)}
    rows = []
    with one_core() as call:
        call(model_reading, info, exact)  # loads and warms up
        for _ in range(min(bench.repeats, _JOBS_TURNS)):
            readings[decode].append(call(decode_reading, info, exact))
            readings[model].append(call(model_reading, info, exact))
            with all_cores() as in_ray:
                ours = in_ray(ray_jobs.our_readings, info, exact, _DRIVER_ROWS)
            readings[one].append(ours[0])
            readings[two].append(ours[1])
            rows.append(ours[2])
            with all_cores() as in_ray:
                plainly = in_ray(ray_jobs.plain_reading, info, bench.weights, _PLAIN_FRAMES)
            readings[plain].append(plainly)
    # The lesser of both speeds is the speed of light, where decoding has a core of its own.
    bound = "the slower of decode alone and model alone"
    readings[bound] = [
        min(a, b, key=lambda r: r.rate("wall"))
        for a, b in zip(readings[decode], readings[model], strict=True)
    ]
    both = "decode and model, on one core"
    readings[both] = [
        Reading(a.frames, a.wall_s + b.wall_s, a.core_s + b.core_s)
        for a, b in zip(readings[decode], readings[model], strict=True)
    ]
    ratios = [
        ratio(readings, one, bound, "wall", 0.95),
        ratio(readings, one, both, "core"),
        ratio(readings, two, one, "wall", 1.85),
        ratio(readings, two, one, "core"),
        ratio(readings, two, plain, "wall", 5.0),
        ratio(readings, two, plain, "core"),
    ]
    spent = [r.parts for r in readings[two]]
    facts: dict[str, Any] = {
        "cores of the driver": _spread(p[ray_jobs.DRIVER] for p in spent),
        "cores of Ray's helpers": _spread(p[ray_jobs.HELPERS] for p in spent),
        "rows a second through the driver": _spread(rows),
        "plain job": "ray.data.read_videos, map_batches by 8 frames, PyTorch, one actor",
    }
    return Measure(
        "the job on Ray, in the middle of a run", _on(info, frames), readings, ratios, facts
    )


def _memory(bench: BenchSettings) -> Measure:
    """Memory of a worker by the length of the video."""
    growth = memory_growth()
    first, last = growth.minutes[0], growth.minutes[-1]
    return Measure(
        "memory of a worker by the length of the video",
        "a made video of 2 frames a second, 96x64, a tiny student, tables published",
        facts={
            **asdict(growth),
            f"peak of {last:g} minutes / peak of {first:g} minute": growth.ratio,
        },
    )


def _overlay(bench: BenchSettings) -> Measure:
    """Overlays of full-HD video."""
    # Imported here, because only drawing needs OpenCV.
    from pipeline.speed.overlay import overlay_measure

    return overlay_measure(bench.video, bench.repeats)


def _spread(values: Iterable[float]) -> dict[str, float]:
    return asdict(Spread.of(values))


def _on(info: VideoInfo, frames: int) -> str:
    count = min(frames, info.frames_expected or frames)
    return f"{info.relative_path}, {info.width}x{info.height} {info.codec}, {count} frames"
