"""Measure the speed, size and GFLOPs of a student: `vsdmot bench VIDEO`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from rich.table import Table

from jobs.cli import EXIT_DONE, EXIT_FAILED, console, fail, load_config, print_config
from model.settings import Device, NotEmpty, Range, check

if TYPE_CHECKING:
    from pipeline.benchmark.speed import Bench


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """Settings of `vsdmot bench`.

    Attributes:
        video: a video file or URL; decoding, and the whole path from file to tracks, are measured
            on all of its frames.
        weights: weights file of the student, a path or a URL.
        output: folder or URL for bench.json.
        frames: greatest number of frames on which the model alone is measured.
        window: number of frames that are encoded as one batch.
        queue_size: greatest number of decoded frames that wait for the model.
        threads: CPU threads of the student; a worker of vsdmot track has one.
        device: device of the student.
    """

    job: ClassVar[str] = "bench"
    about: ClassVar[str] = "Measure the student's size and GFLOPs, and its speed on one video."

    video: Annotated[str, NotEmpty()]
    weights: Annotated[str, NotEmpty()] = "weights/vsdmot-nano.safetensors"
    output: Annotated[str, NotEmpty()] = "runs/bench"
    frames: Annotated[int, Range(1)] = 64
    window: Annotated[int, Range(1, 256)] = 8
    queue_size: Annotated[int, Range(1)] = 32
    threads: Annotated[int, Range(1)] = 1
    device: Device = "cpu"

    def __post_init__(self) -> None:
        check(self)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(BenchConfig, argv)
    print_config(console, config)
    # Imported after the settings are checked, because torch takes seconds to import.
    from model.track.checkpoint import CheckpointError
    from pipeline.storage.files import StorageError
    from pipeline.video.decode import DecodeError
    from pipeline.video.probe import ProbeError

    try:
        return run(config)
    except (CheckpointError, DecodeError, ProbeError, StorageError) as error:
        fail(str(error), EXIT_FAILED)


def run(config: BenchConfig) -> int:
    """Measure, print, and write bench.json; returns the exit code.

    Raises:
        CheckpointError: The weights cannot be used.
        ProbeError, DecodeError: The video cannot be read.
        StorageError: The video or the output cannot be reached.
    """
    import torch

    from pipeline.benchmark.speed import bench
    from pipeline.storage.files import list_videos, write_atomic
    from pipeline.tracking.track_video import TrackSettings, open_tracker
    from pipeline.video.probe import probe

    if config.device != "cpu" and not torch.cuda.is_available():
        fail(
            f"device={config.device}: torch finds no GPU on this machine; give device=cpu",
            EXIT_FAILED,
        )
    files = list(list_videos(config.video))
    if len(files) != 1:
        fail(f"video={config.video}: {len(files)} videos found; give one file", EXIT_FAILED)
    info = probe(files[0])
    settings = TrackSettings(
        config.weights, window=config.window, queue_size=config.queue_size, device=config.device
    )
    tracker = open_tracker(settings)
    torch.set_num_threads(config.threads)
    with console.status("measuring") as status:
        figures = bench(
            tracker, info, settings, config.frames, lambda stage: status.update(f"{stage} …")
        )
    for table in tables(figures):
        console.print(table)
    video = {
        "path": files[0].relative_path, "codec": info.codec, "width": info.width,
        "height": info.height, "fps": info.fps, "bytes": info.size_bytes,
    }  # fmt: skip
    canvas = [tracker.config.input_height, tracker.config.input_width]
    record = {
        "config": asdict(config), "model": tracker.config.size,
        "input": canvas, "video": video, **asdict(figures),
    }  # fmt: skip
    target = f"{config.output.rstrip('/')}/bench.json"
    write_atomic(target, (json.dumps(record, indent=2) + "\n").encode())
    machine = figures.machine
    console.print(
        f"{tracker.config.size} at {canvas[0]}x{canvas[1]} on {info.width}x{info.height} "
        f"{info.codec}; {machine['device']}, torch {machine['torch']}, threads: "
        f"{machine['threads']}, cores: {machine['cores_usable']} ({machine['cpu']}), load before: "
        f"{machine['load']:.1f}; one run; peak {figures.peak_rss_mb:.0f} MB; written to {target}",
        soft_wrap=True, highlight=False,
    )  # fmt: skip
    return EXIT_DONE


def tables(figures: Bench) -> list[Table]:
    """Tables of the figures for the terminal: speed, cost by module, semantics and quality."""
    speed = Table("stage", title="speed", title_justify="left", pad_edge=False)
    for title in ("frames", "frames/s", "x decode", "GFLOPs a frame", "share of the path"):
        speed.add_column(title, justify="right")
    names = {
        "decode": "decode alone", "encode": "encode alone", "step": "step alone",
        "model": "model alone", "path": "whole path",
    }  # fmt: skip
    counted = figures.gflops | {"model": figures.gflops["total"]}
    shares = figures.path_share | {"decode": figures.path_share["wait"]}
    for key, name in names.items():
        speed.add_row(
            name,
            str(figures.frames.get(key, figures.frames["model"])),
            f"{figures.frames_per_second[key]:.1f}",
            f"{figures.to_decode[key]:.3g}",
            f"{counted[key]:.2f}" if key in counted else "",
            f"{shares[key]:.0%}" + (" waiting" if key == "decode" else "") if key in shares else "",
        )
    speed.caption = f"the whole path is {figures.times_real_time:.2f} x real time"
    cost = Table("module", title="cost by module", title_justify="left", pad_edge=False)
    cost.add_column("parameters, M", justify="right")
    cost.add_column("share of encode", justify="right")
    for name in figures.parameters_m | figures.encode_share:
        parameters, share = figures.parameters_m.get(name), figures.encode_share.get(name)
        cost.add_row(
            name,
            "" if parameters is None else f"{parameters:.3f}",
            "" if share is None else f"{share:.2%}",
        )
    times = figures.milliseconds
    price = Table("part", title="semantics and quality", title_justify="left", pad_edge=False)
    price.add_column("ms a frame", justify="right")
    price.add_column("x the branch", justify="right")
    rows = {
        "semantic branch": "semantics", "quality and gate": "quality", "tracker": "tracker",
        "ViT-B/32 at 224x224": "vit_b32", "ViT-B/32 on the canvas": "vit_b32_canvas",
    }  # fmt: skip
    for name, key in rows.items():
        price.add_row(name, f"{times[key]:.2f}", f"{times[key] / times['semantics']:.1f}")
    price.caption = f"the semantic branch is {figures.semantics_share:.1%} of the tracker's time"
    return [speed, cost, price]


if __name__ == "__main__":
    sys.exit(main())
