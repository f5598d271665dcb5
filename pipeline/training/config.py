"""Settings of the workers of a training, of frames from an archive, and of the feature cache."""

from dataclasses import dataclass
from typing import Annotated, Literal

from model.settings import NotEmpty, Range, Share, check
from pipeline.degrade.kinds import KINDS, Kind

Part = Literal["quality", "semantics", "tracks"]
"""A part of a student that can be trained alone; `model.learn.part_loss` has its modules."""
Kernels = Literal["torch", "native"]
"""What computes the convolutions of a training."""
_Canvas = Annotated[int, Range(64, multiple_of=32)]


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """Resources of each training worker. They change results by rounding at most.

    Attributes:
        threads: CPU threads of a worker; 0: all cores without Ray, one with Ray.
        loaders: processes beside each worker that load its batches; 0: the worker loads them.
        device: device of a worker; auto: a GPU if there is one, else the CPU.
        kernels: torch: convolutions as PyTorch computes them. native: on a CPU, by kernels that are
            compiled at the start, with products in bfloat16 if the CPU has it; a step is much
            faster. They need a C++ compiler: g++, or that in the variable CXX.
        max_failures: number of failures of workers or nodes after which the run ends with an
            error; -1: never. With Ray only.
    """

    threads: Annotated[int, Range(0)] = 0
    loaders: Annotated[int, Range(0)] = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    kernels: Kernels = "torch"
    max_failures: Annotated[int, Range(-1)] = 8

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class FrameConfig:
    """Frames that are drawn from the archive.

    Attributes:
        height: height of the canvas in pixels, a multiple of 32.
        width: width of the canvas in pixels, a multiple of 32.
        degraded: share of frames that are degraded.
        kinds: kinds of degradation to draw from.
        pool: number of different crops of frames; they repeat, each time with another
            degradation. 0: no limit, every crop is new. A feature cache needs a limit.
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
    """The cache of the teacher's features.

    Attributes:
        path: folder or URL of the cache; empty: no cache, the teacher computes features in each
            step.
        dtype: number type in which features are stored.
        dense_share: share of frames whose dense features are stored; pooled features are stored
            for all frames.
    """

    path: str = ""
    dtype: Literal["float16", "float32"] = "float16"
    dense_share: Annotated[float, Range(0, 1, above=True)] = 1.0

    def __post_init__(self) -> None:
        check(self)
