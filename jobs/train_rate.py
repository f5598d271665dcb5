"""Frames a second of training here: `python -m jobs.train_rate shards=runs/shards`."""

import json
import sys
from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from rich.table import Table

from jobs.cli import EXIT_DONE, EXIT_FAILED, JobConfig, console, fail, load_config, print_config
from jobs.student import start_student
from model.allocator import keep_large_blocks
from model.learn.clip_loss import ClipObjective
from model.learn.training import Trainer
from model.learn.training_config import TrainingConfig
from pipeline.clips.clips import Clips, collate_clips
from pipeline.clips.config import ClipConfig
from pipeline.datasets.shards import Shards
from pipeline.storage.files import write_atomic
from pipeline.training.batches import Stream, batches
from pipeline.training.speed import TrainSpeed, measure_training


class TrainRateConfig(JobConfig):
    """Settings of `jobs.train_rate`."""

    job: ClassVar[str] = "train_rate"
    about: ClassVar[str] = "Measure training's frames a second, and what each part of a step takes."

    shards: str = Field(min_length=1, description="folder of shards that jobs.pack made")
    start: str = Field("weights/vsdmot-nano.safetensors", description="weights to start from")
    output: str = Field("runs/train-rate", min_length=1, description="folder or URL for rate.json")
    lengths: list[int] = Field([1, 3], min_length=1, description="frames a clip, a column each")
    frames: int = Field(24, ge=1, description="frames a step")
    height: int = Field(256, description="height of the canvas in pixels, a multiple of 32")
    width: int = Field(416, description="width of the canvas in pixels, a multiple of 32")
    threads: list[int] = Field([1, 2], min_length=1, description="CPU threads, a column each")
    steps: int = Field(6, ge=1, description="steps that are timed")
    frozen_stages: int = Field(2, ge=0, description="backbone stages that stay as they are")
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="cpu, cuda or cuda:N")
    memory_gb: float = Field(2.0, ge=0, description="decoded pictures kept, in 10^9 bytes")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(TrainRateConfig, argv)
    print_config(console, config)
    keep_large_blocks()
    try:
        speeds = {
            f"clips of {length}, {threads} threads": _speed(config, length, threads)
            for length in config.lengths
            for threads in config.threads
        }
    except ValueError as error:
        fail(str(error), EXIT_FAILED)
    table = Table("", *speeds, pad_edge=False)
    table.add_row("frames/s", *(f"{s.frames_per_second:.2f}" for s in speeds.values()))
    for part in next(iter(speeds.values())).shares:
        table.add_row(f"  {part}", *(f"{s.shares[part]:.1%}" for s in speeds.values()))
    console.print(table)
    record = {"config": config.model_dump(mode="json")} | {
        name: {"frames_per_second": s.frames_per_second, "shares": s.shares}
        for name, s in speeds.items()
    }
    write_atomic(f"{config.output}/rate.json", (json.dumps(record, indent=2) + "\n").encode())
    return EXIT_DONE


def _speed(config: TrainRateConfig, length: int, threads: int) -> TrainSpeed:
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
    trainer = Trainer(tracker, ClipObjective(), training, config.device)
    stream = batches(Stream(clips, collate_clips), batch, 0, 0, 1)
    return measure_training(trainer, stream, config.steps)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
