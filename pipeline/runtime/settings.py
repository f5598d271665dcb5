"""Settings that many jobs share: where the work runs, and where it is logged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from model.settings import NotEmpty, Range, check

_Some = Annotated[int, Range(1)]


@dataclass(frozen=True, slots=True)
class Pool:
    """Sizes of a pool of workers.

    Attributes:
        least: Least size, at least 1.
        start: Size at the start.
        most: Greatest size; None: as many as there is room for.
    """

    least: int
    start: int
    most: int | None

    def at_most(self, size: int) -> Pool:
        """This pool with at most so many workers."""
        most = size if self.most is None else min(self.most, size)
        return Pool(min(self.least, most), min(self.start, most), most)


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Where the work runs. None of it changes results.

    Attributes:
        address: Ray cluster to join, e.g. ray://head:10001 or auto; empty starts one here.
        workers: processes that share the work; 0: no Ray, all in this process. track and eval
            take null too: one a GPU, else one a CPU (eval: one less), fewer if memory is short;
            in a cluster that track joins, more as machines join and fewer as they go. track,
            train and distill take [min, max] too: as many as there is room for.
        streams: track alone: videos that a worker tracks at the same time; null: on a GPU as many
            as a short measurement finds best, on a CPU one.
        gpu_share: track alone: share of a GPU that a worker has; with 0.5 two share one.
    """

    address: str = ""
    workers: Annotated[int, Range(0)] | tuple[_Some, _Some] | None = None
    streams: Annotated[int, Range(1, 256)] | None = None
    gpu_share: Annotated[float, Range(0, 1, above=True)] = 1.0

    def __post_init__(self) -> None:
        check(self)
        if isinstance(self.workers, tuple) and self.workers[0] > self.workers[1]:
            raise ValueError(
                f"cluster.workers: {list(self.workers)} was given, [min, max] is allowed"
            )

    def number(self) -> int | None:
        """Number of workers, None for as many as there are GPUs or CPUs.

        Raises:
            ValueError: a range is given.
        """
        if isinstance(self.workers, tuple):
            raise ValueError(
                f"cluster.workers: {list(self.workers)} was given, this job takes a whole number, "
                "0 or more, or null"
            )
        return self.workers

    def greatest(self) -> int | None:
        """Greatest number of workers, None for as many as there are GPUs or CPUs."""
        return self.workers[1] if isinstance(self.workers, tuple) else self.workers

    def pool(self, room: int) -> Pool:
        """Sizes of a pool of workers.

        Args:
            room: Workers that the cluster has room for now.
        """
        if isinstance(self.workers, tuple):
            least, most = self.workers
            return Pool(least, min(most, max(least, room)), most)
        if self.workers is None:
            return Pool(1, room, None)
        return Pool(self.workers, self.workers, self.workers)

    def least_and_most(self) -> tuple[int, int]:
        """Least and greatest number of workers.

        Raises:
            ValueError: null is given.
        """
        if self.workers is None:
            raise ValueError(
                "cluster.workers: null was given, this job takes a whole number, 0 or more, or "
                "[min, max]"
            )
        return self.workers if isinstance(self.workers, tuple) else (self.workers, self.workers)


@dataclass(frozen=True, slots=True)
class MlflowConfig:
    """Where the run is logged. None of it changes results.

    Attributes:
        enabled: log settings, figures and results to MLflow.
        uri: MLflow store or server, e.g. http://host:5000; the default is a file here, the one
            that a plain `mlflow ui` opens.
        experiment: MLflow experiment, made if missing.
    """

    enabled: bool = True
    uri: str = "sqlite:///mlflow.db"
    experiment: Annotated[str, NotEmpty()] = "vsdmot"

    def __post_init__(self) -> None:
        check(self)
