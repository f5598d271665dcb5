"""Measure the speed of making training clips: `python -m jobs.loader_rate shards=runs/shards`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from rich.table import Table

from jobs.cli import EXIT_DONE, EXIT_FAILED, console, fail, load_config, print_config
from model.settings import NotEmpty, Range, check
from pipeline.clips.clips import Clips
from pipeline.clips.config import ClipConfig
from pipeline.clips.speed import ClipSpeed, measure_clips
from pipeline.datasets.shards import Shards


@dataclass(frozen=True, slots=True)
class LoaderRateConfig:
    """Settings of `jobs.loader_rate`.

    Attributes:
        shards: folder of shards, made by vsdmot pack.
        lengths: numbers of frames in a clip; each gives a column.
        height: height of the canvas in pixels, a multiple of 32.
        width: width of the canvas in pixels, a multiple of 32.
        degrade_at: size of the picture when it is degraded; see clips.degrade_at of vsdmot train.
        items: number of clips, which are made twice.
        batch: clips in a batch.
        seed: seed of all draws.
        memory_gb: greatest memory for decoded pictures, in 10^9 bytes.
    """

    job: ClassVar[str] = "loader_rate"
    about: ClassVar[str] = (
        "Measure the time to make training clips on one core, and the share of each part."
    )

    shards: Annotated[str, NotEmpty()] = "runs/shards"
    lengths: Annotated[tuple[int, ...], NotEmpty()] = (1, 3)
    height: int = 256
    width: int = 416
    degrade_at: Literal["canvas", "camera"] = "canvas"
    items: Annotated[int, Range(1)] = 400
    batch: Annotated[int, Range(1)] = 24
    seed: Annotated[int, Range(0)] = 0
    memory_gb: Annotated[float, Range(0)] = 4.0

    def __post_init__(self) -> None:
        check(self)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns the exit code."""
    config = load_config(LoaderRateConfig, argv)
    print_config(console, config)
    try:
        speeds = {length: _speed(config, length) for length in config.lengths}
    except ValueError as error:
        fail(str(error), EXIT_FAILED)
    console.print(_table(speeds))
    return EXIT_DONE


def _speed(config: LoaderRateConfig, length: int) -> ClipSpeed:
    drawn = ClipConfig(
        height=config.height,
        width=config.width,
        length=length,
        degrade_at=config.degrade_at,
        memory_gb=config.memory_gb,
    )
    clips = Clips(Shards(config.shards), drawn, config.seed, batch=config.batch)
    return measure_clips(clips, config.items, config.batch)


def _table(speeds: dict[int, ClipSpeed]) -> Table:
    table = Table("one core", *(f"clips of {length}" for length in speeds), pad_edge=False)

    table.add_row("first time, ms", *(f"{s.first:.2f}" for s in speeds.values()))
    table.add_row("from memory, ms", *(f"{s.again:.2f}" for s in speeds.values()))
    table.add_row("making batches, ms", *(f"{s.collate:.2f}" for s in speeds.values()))
    rates = (length * 1e3 / (s.again + s.collate) for length, s in speeds.items())
    table.add_row("frames/s", *(f"{rate:.0f}" for rate in rates))
    for part in next(iter(speeds.values())).shares:
        table.add_row(f"  {part}", *(f"{s.shares[part]:.0%}" for s in speeds.values()))
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
