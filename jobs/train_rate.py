"""Measure the speed of training: `python -m jobs.train_rate shards=runs/shards`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, ClassVar

import torch
from rich.table import Table

from jobs.cli import EXIT_DONE, EXIT_FAILED, console, fail, load_config, print_config
from model.allocator import keep_large_blocks
from model.learn.clip_loss import ClipObjective
from model.learn.training import Trainer
from model.learn.training_config import TrainingConfig
from model.settings import Device, NotEmpty, Range, check
from pipeline.clips.clips import Clips, collate_clips
from pipeline.clips.config import ClipConfig
from pipeline.datasets.shards import Shards
from pipeline.storage.files import write_atomic
from pipeline.training.batches import Stream, batches
from pipeline.training.config import Kernels
from pipeline.training.speed import TrainSpeed, measure_training
from pipeline.training.student import choose_kernels, start_student


@dataclass(frozen=True, slots=True)
class TrainRateConfig:
    """Settings of `jobs.train_rate`.

    Attributes:
        shards: folder of shards, made by vsdmot pack.
        start: weights file to start from.
        output: folder or URL for rate.json.
        lengths: numbers of frames in a clip; each gives a column.
        frames: frames in a step.
        height: height of the canvas in pixels, a multiple of 32.
        width: width of the canvas in pixels, a multiple of 32.
        threads: numbers of CPU threads; each gives a column.
        kernels: kernels of the convolutions, see vsdmot train; each gives a column.
        steps: number of steps that are measured.
        frozen_stages: number of backbone stages, from the input on, that are not trained.
        device: device of the training.
        memory_gb: greatest memory for decoded pictures, in 10^9 bytes.
    """

    job: ClassVar[str] = "train_rate"
    about: ClassVar[str] = (
        "Measure frames per second of training, and the share of each part of a step."
    )

    shards: Annotated[str, NotEmpty()] = "runs/shards"
    start: str = "weights/vsdmot-nano.safetensors"
    output: Annotated[str, NotEmpty()] = "runs/train-rate"
    lengths: Annotated[tuple[int, ...], NotEmpty()] = (1, 3)
    frames: Annotated[int, Range(1)] = 24
    height: int = 256
    width: int = 416
    threads: Annotated[tuple[int, ...], NotEmpty()] = (1, 2)
    kernels: Annotated[tuple[Kernels, ...], NotEmpty()] = ("torch",)
    steps: Annotated[int, Range(1)] = 6
    frozen_stages: Annotated[int, Range(0)] = 2
    device: Device = "cpu"
    memory_gb: Annotated[float, Range(0)] = 2.0

    def __post_init__(self) -> None:
        check(self)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(TrainRateConfig, argv)
    print_config(console, config)
    keep_large_blocks()
    try:
        speeds = {
            f"clips of {length}, {threads} threads, {kernels}": _speed(
                config, length, threads, kernels
            )
            for length in config.lengths
            for threads in config.threads
            for kernels in config.kernels
        }
    except ValueError as error:
        fail(str(error), EXIT_FAILED)
    table = Table("", *speeds, pad_edge=False)
    table.add_row("frames/s", *(f"{s.frames_per_second:.2f}" for s in speeds.values()))
    for part in next(iter(speeds.values())).shares:
        table.add_row(f"  {part}", *(f"{s.shares[part]:.1%}" for s in speeds.values()))
    console.print(table)
    record = {"config": asdict(config)} | {
        name: {"frames_per_second": s.frames_per_second, "shares": s.shares}
        for name, s in speeds.items()
    }
    write_atomic(f"{config.output}/rate.json", (json.dumps(record, indent=2) + "\n").encode())
    return EXIT_DONE


def _speed(config: TrainRateConfig, length: int, threads: int, kernels: Kernels) -> TrainSpeed:
    torch.set_num_threads(threads)
    batch = max(1, config.frames // length)
    training = TrainingConfig(
        batch=batch, frozen_stages=config.frozen_stages, batch_statistics=length == 1
    )
    drawn = ClipConfig(
        height=config.height, width=config.width, length=length, memory_gb=config.memory_gb
    )
    clips = Clips(Shards(config.shards), drawn, training.seed, batch=batch)
    tracker = start_student("nano", config.start, "", None, training.seed)
    choose_kernels(tracker, kernels, torch.device(config.device))
    trainer = Trainer(tracker, ClipObjective(), training, config.device)
    stream = batches(Stream(clips, collate_clips), (batch,), 0, 0, 1)
    return measure_training(trainer, stream, config.steps)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
