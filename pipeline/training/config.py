"""Groups of settings of trainings: workers, frames of an archive, the cache of features."""

from dataclasses import dataclass
from typing import Annotated, Literal

from model.settings import NotEmpty, Range, Share, check
from pipeline.degrade.kinds import KINDS, Kind

Part = Literal["quality", "semantics", "tracks"]
"""A part of a student that can be trained alone; `model.learn.part_loss` has its modules."""
_Canvas = Annotated[int, Range(64, multiple_of=32)]


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What each worker of a training has. None of it changes results.

    Attributes:
        threads: CPU threads of a worker; 0 takes all cores in this process, 1 on Ray.
        loaders: processes beside each worker that prepare what it trains on.
        device: where it computes; auto takes a GPU where there is one.
        max_failures: times that workers or nodes may die before the run gives up; -1 for any.
    """

    threads: Annotated[int, Range(0)] = 0
    loaders: Annotated[int, Range(0)] = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_failures: Annotated[int, Range(-1)] = 8

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class FrameConfig:
    """How frames are drawn.

    Attributes:
        height, width: canvas in pixels, multiples of 32.
        degraded: share of frames that are degraded.
        kinds: kinds of degradation drawn from.
        pool: frames and crops in all, each seen again and again under new degradations; 0 draws
            new ones for ever. A feature cache needs a pool.
    """

    height: _Canvas = 256
    width: _Canvas = 416
    degraded: Share = 0.8
    kinds: Annotated[tuple[Kind, ...], NotEmpty()] = KINDS
    pool: Annotated[int, Range(0)] = 0

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """Where teacher features are kept.

    Attributes:
        path: folder or URL; empty asks the teacher anew each time.
        dtype: as which features are stored.
        dense_share: share of frames whose dense features are kept; pooled ones are of all.
    """

    path: str = ""
    dtype: Literal["float16", "float32"] = "float16"
    dense_share: Annotated[float, Range(0, 1, above=True)] = 1.0

    def __post_init__(self) -> None:
        check(self)
